//! Raw system calls: the only user-space module with `unsafe`.
