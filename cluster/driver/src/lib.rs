//! Threads and sockets around the cluster core.
