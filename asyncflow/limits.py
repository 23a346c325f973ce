"""Every bound and fixed time of the engine and its protocol: the unit is in the name, the reason in the line above.

Sizes are of UTF-8 JSON text. What an operator may set (retention, sweep period, lease) has its default here.
"""

from typing import Final

KIB: Final = 1024

# -- the document ------------------------------------------------------------------------------------------------------

# Firestore refuses a document over 1 MiB, indexes and field names included; the rest is headroom for them.
DOCUMENT_BYTES: Final = 900 * KIB
# From here on a save costs noticeably more than a step is worth, so it is said in the log while there is time to act.
DOCUMENT_WARN_BYTES: Final = 256 * KIB
# An event may not take the room that results and steps need to get the instance to its end.
DOCUMENT_EVENT_BYTES: Final = 640 * KIB
# Deeper JSON exhausts parsers of the stores and of callers (restricted JSON, rule 5).
STATE_DEPTH: Final = 64
# Beyond 2^53 - 1 a double, and with it every JavaScript client and jsonb path, loses digits (RFC 7493).
JSON_INTEGER_MAX: Final = 2**53 - 1
# 1,000 threads in flight are 370 KiB of document; more would leave no room for the state.
THREADS_BESIDES_MAIN: Final = 1_000
# An inbox is for what comes during one step, not a queue for a day.
INBOX_EVENTS: Final = 1_000
# The same in bytes, for large inputs; more than a quarter of the document is no longer "meanwhile".
INBOX_BYTES: Final = 256 * KIB
# Answers and ids kept for repeats must not crowd out the state.
SEEN_BYTES: Final = 64 * KIB
# One per inbox place: whatever may lie there can be recognised when it is repeated.
SEEN_IDS: Final = 1_000
# Longer than a weekend with an outage: within it a client may repeat with its key.
SEEN_DAYS: Final = 7
# Ids of messages that came without a key: only our own write in doubt asks for them, and it asks soon (rule 6).
SEEN_BARE_IDS: Final = 200
# Half of `seen` at most for one answer; a larger one is given once and not kept (rule 27). A parked result too.
ANSWER_BYTES: Final = 32 * KIB
# An undo entry keeps its item; a thousand small ones are about a fifth of the document.
UNDO_ENTRIES: Final = 1_000
# A whole loop over a thousand items with ten statements each; a loop that never blocks is stopped within a second.
STATEMENTS_PER_WRITE: Final = 10_000

# -- texts -------------------------------------------------------------------------------------------------------------

# A request larger than this is a file, and files belong in a bucket; also far under what an inbox takes.
BODY_BYTES: Final = 256 * KIB
# A page of text says what went wrong; an exception may quote a whole response.
ERROR_TEXT_BYTES: Final = 8 * KIB
# The details of one error, as large as an answer, since both are given to a caller.
ERROR_DETAILS_BYTES: Final = ANSWER_BYTES
# The last dozens of frames of one error: the end is where it was raised.
TRACEBACK_BYTES: Final = 8 * KIB
# Many parked threads mostly share one cause; their tracebacks must not fill the document.
TRACEBACKS_BYTES: Final = 64 * KIB
# Fits every store's key, a URL segment and a Cloud Tasks payload.
ID_CHARACTERS: Final = 128

# -- steps and leases: timeout < request < lease < dispatch, checked at start-up ---------------------------------------

# What a step has that names no timeout: it ends, and is saved, within one request.
STEP_TIMEOUT_SECONDS: Final = 240
# The usual longest request of serverless platforms, and enough for one step and its two saves.
REQUEST_SECONDS: Final = 300
# A request that was cut off is over before another worker may take its step.
LEASE_SECONDS: Final = 330
# Cloud Tasks gives up on a dispatch after this; longer than a lease, so that it never doubles a live run.
DISPATCH_SECONDS: Final = 600
# What a lease has beyond its step's timeout: loading, the save, and clocks that differ (rule 15).
LEASE_MARGIN_SECONDS: Final = 90
# A lease that is renewed is renewed this many times in its length: two may fail before it lapses.
RENEWALS_PER_LEASE: Final = 3
# A clock further off than this against the store's is reported: leases would lapse early.
CLOCK_SKEW_SECONDS: Final = 5

# -- retries -----------------------------------------------------------------------------------------------------------

# With the delays below about three hours: an outage over lunch heals by itself, a night is seen by an operator.
RETRY_ATTEMPTS: Final = 20
# Short enough not to be felt after a glitch, long enough not to hammer.
RETRY_DELAY_SECONDS: Final = 1
# Doubling reaches the cap after ten failures.
RETRY_FACTOR: Final = 2
# Nobody waits longer than this for a service that is back.
RETRY_MAX_DELAY_SECONDS: Final = 15 * 60
# Steps that failed together do not come back together.
RETRY_JITTER: Final = 0.2
# A delay of years is a mistake of units, and datetime arithmetic must not overflow.
RETRY_DELAY_MAX_DAYS: Final = 3_650

# -- messages and wake-ups ---------------------------------------------------------------------------------------------

# How long a sender waits for his answer unless he says otherwise: shorter than the usual client and proxy timeouts.
PATIENCE_SECONDS: Final = 10
# A connection held longer is cut by proxies; then the answer is fetched with the key.
PATIENCE_MAX_SECONDS: Final = 60
# When to look again for an answer that is given in another process; the last one repeats (rule 28).
POLL_SECONDS: Final = (0.2, 0.5, 1.0, 2.0, 4.0)
# A write whose outcome stayed unknown longer may have left the bare ids, so it is given up, not tried twice (rule 27).
DOUBT_SECONDS: Final = 60
# How long actions may run on after a cancel before their leases are void: enough to close what is open.
CANCEL_GRACE_SECONDS: Final = 5 * 60
# A lost wake-up costs this at most, plus the grace; one indexed query each time.
SWEEP_PERIOD_SECONDS: Final = 10
# What is due just now is left to the wake-up that is on its way.
SWEEP_GRACE_SECONDS: Final = 5
# A sweep ends within its request and says how many are left (rule 21).
SWEEP_SECONDS: Final = 240
# How far `due` moves what it hands out, so that two workers do not get the same; a load and a save take far less.
DUE_HANDOUT_SECONDS: Final = 30

# -- HTTP --------------------------------------------------------------------------------------------------------------

# A page on a screen.
PAGE_SIZE: Final = 50
# A page in memory: a thousand list entries are about a megabyte.
PAGE_SIZE_MAX: Final = 1_000
