"""The work itself: an instance is loaded, decided on, saved, run and woken, by a worker or within a request."""
