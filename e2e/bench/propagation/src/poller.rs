//! One kept HTTP/1.1 connection that asks every millisecond.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use tokio::time::Instant;

/// From one question to the next.
const PERIOD: Duration = Duration::from_millis(1);
/// A connection that says nothing for so long counts as broken.
const SILENCE: Duration = Duration::from_secs(5);

/// Asks the gateway, and counts what is neither 200 nor 404.
pub struct Poller {
    gateway: SocketAddr,
    connection: Option<BufReader<TcpStream>>,
    errors: u64,
}

impl Poller {
    /// Connects with the first question.
    pub fn new(gateway: SocketAddr) -> Self {
        Self { gateway, connection: None, errors: 0 }
    }

    /// Errors since the last call.
    pub fn take_errors(&mut self) -> u64 {
        std::mem::take(&mut self.errors)
    }

    /// Asks for `host` until it answers 200, and answers the time since `since`.
    ///
    /// # Errors: not served within `limit`.
    pub fn until_served(&mut self, host: &str, since: Instant, limit: Duration) -> Result<Duration> {
        loop {
            let asked = Instant::now();
            let outcome = self.ask(host);
            match outcome {
                Ok(200) => return Ok(since.elapsed()),
                Ok(404) => {}
                Ok(_) => self.errors += 1,
                Err(_) => {
                    self.errors += 1;
                    self.connection = None;
                }
            }
            ensure!(since.elapsed() < limit, "{host} was not served within {limit:?}: {outcome:?} at last");
            std::thread::sleep(PERIOD.saturating_sub(asked.elapsed()));
        }
    }

    /// One exchange; the status.
    fn ask(&mut self, host: &str) -> Result<u16> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect()?,
        };
        connection.get_mut().write_all(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())?;
        let (status, keep) = read_response(&mut connection)?;
        self.connection = keep.then_some(connection);
        Ok(status)
    }

    fn connect(&self) -> Result<BufReader<TcpStream>> {
        let stream = TcpStream::connect_timeout(&self.gateway, SILENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE))?;
        Ok(BufReader::new(stream))
    }
}

/// Reads one response with a `content-length`: its status, and whether the connection can be kept.
fn read_response(connection: &mut BufReader<TcpStream>) -> Result<(u16, bool)> {
    let mut line = String::new();
    connection.read_line(&mut line)?;
    let status = line.split(' ').nth(1).with_context(|| format!("no status in {line:?}"))?.parse()?;
    let (mut length, mut keep) = (None, true);
    loop {
        let mut line = String::new();
        ensure!(connection.read_line(&mut line)? > 0, "the head ends early");
        let line = line.trim_end().to_ascii_lowercase();
        match line.split_once(':') {
            None if line.is_empty() => break,
            Some(("content-length", value)) => length = Some(value.trim().parse::<u64>()?),
            Some(("connection", value)) if value.trim() == "close" => keep = false,
            _ => {}
        }
    }
    let Some(length) = length else { bail!("status {status} without content-length") };
    std::io::copy(&mut connection.take(length), &mut std::io::sink())?;
    Ok((status, keep))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Answers one request on each connection for each of the statuses; 0 closes the connection instead.
    fn gateway(connections: Vec<Vec<u16>>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for statuses in connections {
                let mut reader = BufReader::new(listener.accept().unwrap().0);
                for status in statuses.into_iter().take_while(|status| *status != 0) {
                    let mut line = String::new();
                    while line != "\r\n" {
                        line.clear();
                        assert!(reader.read_line(&mut line).unwrap() > 0);
                    }
                    let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 2\r\n\r\nok");
                    reader.get_mut().write_all(answer.as_bytes()).unwrap();
                }
            }
        });
        address
    }

    #[test]
    fn what_is_neither_404_nor_200_is_an_error_and_so_is_a_connection_that_breaks() {
        let mut poller = Poller::new(gateway(vec![vec![404, 503, 0], vec![404, 404, 200]]));
        poller.until_served("a.example.com", Instant::now(), Duration::from_secs(5)).unwrap();
        assert_eq!(poller.take_errors(), 2);
        assert_eq!(poller.take_errors(), 0);
    }

    #[test]
    fn the_backend_answers_one_request_after_the_other_on_a_kept_connection() {
        let mut poller = Poller::new(crate::backend::serve([127, 0, 0, 1].into()).unwrap());
        for _ in 0..3 {
            poller.until_served("a.example.com", Instant::now(), Duration::from_secs(5)).unwrap();
        }
        assert!(poller.connection.is_some());
        assert_eq!(poller.take_errors(), 0);
    }
}
