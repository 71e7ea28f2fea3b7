//! Free TCP ports on 127.0.0.1.
//!
//! A server that is started again keeps its port, so that clients find it where it was; a port
//! that somebody took meanwhile is replaced.

use std::net::{Ipv4Addr, TcpListener};

use crate::DevstackError;

/// `N` different ports that nobody listens on at this moment.
pub(crate) fn free_ports<const N: usize>() -> Result<[u16; N], DevstackError> {
    // All listeners stay open until the last port is known, or the kernel may hand out one twice.
    let mut listeners = Vec::with_capacity(N);
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .map_err(DevstackError::process("bind a free port on 127.0.0.1"))?;
        *port = listener
            .local_addr()
            .map_err(DevstackError::process("read the address of a listener"))?
            .port();
        listeners.push(listener);
    }
    Ok(ports)
}

/// True when a server could listen on `port` now.
pub(crate) fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}
