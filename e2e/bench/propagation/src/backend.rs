//! The backend of every route: this process, so that the cluster needs no image for it.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
};

use anyhow::Result;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 3\r\n\r\nok\n";

/// Answers 200 to every request without a body at `address`, on threads that end with the process.
pub fn serve(address: IpAddr) -> Result<SocketAddr> {
    let listener = TcpListener::bind((address, 0))?;
    let bound = listener.local_addr()?;
    std::thread::Builder::new().name("backend".into()).spawn(move || {
        for stream in listener.incoming().flatten() {
            // A connection without a thread is closed, which the poller sees as an error.
            let _ = std::thread::Builder::new().spawn(move || answer(stream));
        }
    })?;
    Ok(bound)
}

/// Answers each head on the connection until it ends.
fn answer(mut stream: TcpStream) {
    let (mut buffer, mut head) = ([0; 4096], Vec::new());
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        head.extend_from_slice(buffer.get(..count).unwrap_or_default());
        while let Some(end) = head.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            head.drain(..end + 4);
            if stream.write_all(ANSWER).is_err() {
                return;
            }
        }
    }
}
