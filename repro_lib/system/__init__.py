"""Files, leases, processes, temporary folders, environment: what the system has to do with.

In: paths and process numbers, by the standard library alone. Out: files that are whole or not there, one
writer at a time, processes that surely end, folders that are gone afterwards."""

from typing import TYPE_CHECKING

from repro_lib import lazily

if TYPE_CHECKING:
    from repro_lib.system.environment import mismatches as mismatches
    from repro_lib.system.files import WriteError as WriteError, write_atomically as write_atomically
    from repro_lib.system.leases import LeaseHeldError as LeaseHeldError, LeaseLostError as LeaseLostError, hold as hold
    from repro_lib.system.processes import ProcessId as ProcessId, usable_cores as usable_cores
    from repro_lib.system.temporary import scratch_folder as scratch_folder

__getattr__, __dir__ = lazily(__name__)
