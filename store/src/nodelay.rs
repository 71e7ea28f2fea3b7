//! Small messages to Postgres leave at once (`TCP_NODELAY`, tcp(7)).
//!
//! sqlx leaves Nagle's algorithm on and hands out no socket. The end of a COPY is a small write behind
//! another, so the kernel would hold it back until the server acknowledges the first, which it delays by
//! 40 ms, having nothing to say yet: every flush would take that long.
#![expect(
    unsafe_code,
    reason = "sqlx owns the sockets and shows none; they are borrowed by number"
)]

use std::fs;
use std::os::fd::BorrowedFd;

use socket2::SockRef;

/// Sets the option on every TCP connection of this process to that port. Where `/proc` is not there,
/// nothing happens: flushes are only slower.
pub(crate) fn set_on_connections_to(port: u16) {
    let Ok(open) = fs::read_dir("/proc/self/fd") else {
        return;
    };
    let numbers: Vec<i32> = open
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for number in numbers {
        // SAFETY: the descriptor was open a moment ago and is used only for the two calls below. If
        // somebody closes it meanwhile, they fail or meet another connection to the same port, for which
        // the option is as right; nothing is read, written or closed through it.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        let socket = SockRef::from(&descriptor);
        let is_ours = socket
            .peer_addr()
            .ok()
            .and_then(|peer| peer.as_socket())
            .is_some_and(|peer| peer.port() == port);
        if is_ours {
            // A connection that ended meanwhile needs no option.
            let _ = socket.set_tcp_nodelay(true);
        }
    }
}
