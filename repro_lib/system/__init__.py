"""Files, leases, processes, temporary folders, environment: what the system has to do with.

In: paths and process numbers, by the standard library alone. Out: files that are whole or not there, one
writer at a time, processes that surely end, folders that are gone afterwards."""
