//! One pinned thread per CPU: a mio loop that owns its listeners, its connections and their buffers.

pub mod buffers;
pub mod clock;
