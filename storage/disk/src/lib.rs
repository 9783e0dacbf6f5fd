//! RocksDB and raft-engine.
