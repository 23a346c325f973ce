"""The lines inside `runner`: drivers know nothing of each other, HTTP knows no driver, clouds stay in their drivers."""

from collections.abc import Iterator

from tests.tidy.imports import Import, imports_of
from tests.tidy.sources import Source

DRIVERS = {
    "runner.stores": ("firestore", "memory", "postgres", "sqlite"),
    "runner.schedulers": ("cloud_tasks", "local"),
}
# Libraries that are imported only when they are configured, and the drivers that may name them.
CLOUD_LIBRARIES = {
    "google": ("runner.stores.firestore", "runner.schedulers.cloud_tasks"),
    "grpc": ("runner.stores.firestore", "runner.schedulers.cloud_tasks"),
    "psycopg": ("runner.stores.postgres",),
    "psycopg_pool": ("runner.stores.postgres",),
}


def driver_of(module: str) -> str | None:
    """Return the driver that *module* belongs to, also as one of several files: `sqlite_writer` is part of `sqlite`."""
    for folder, names in DRIVERS.items():
        if module.startswith(folder + "."):
            file = module.removeprefix(folder + ".").partition(".")[0]
            for name in names:
                if file == name or file.startswith(name + "_"):
                    return f"{folder}.{name}"
    return None


def crossings(source: Source) -> Iterator[str]:
    """Give each import of *source* that crosses a line, as `path:line: what is wrong`."""
    own = driver_of(source.module)
    for found in imports_of(source):
        fault = _fault(source, own, found)
        if fault:
            yield f"{source.path}:{found.line}: {fault}"


def _fault(source: Source, own: str | None, found: Import) -> str | None:
    other = driver_of(f"{found.module}.{found.name}")
    if other and own and other != own:
        return f"the driver {own} imports the driver {other}"
    if other and f"{source.module}.".startswith("runner.http."):
        return f"HTTP code imports the driver {other}"
    homes = CLOUD_LIBRARIES.get(found.top)
    if homes and own not in homes:
        return f"{found.top} may be imported only by {' and '.join(homes)}"
    return None
