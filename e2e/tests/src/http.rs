//! A blocking HTTP/1.1 client (RFC 9112) that hides nothing: no retries, no redirects, every failure with its cause.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Limits connecting, and each read and write.
const LIMIT: Duration = Duration::from_secs(10);

/// An answer, with its whole body.
#[derive(Clone, Debug)]
pub struct Response {
    /// The three digits.
    pub status: u16,
    headers: Vec<(String, String)>,
    /// Decoded from its transfer coding.
    pub body: String,
}

impl Response {
    /// The first header of that name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    fn closes(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// One `GET` on a connection of its own.
pub fn get(address: SocketAddr, host: &str, path: &str) -> Result<Response> {
    Connection::open(address)?.get(host, path)
}

/// A connection that is kept open between requests.
pub struct Connection {
    stream: BufReader<TcpStream>,
    served: usize,
    open: bool,
}

impl Connection {
    /// # Errors: no connection within 10 s.
    pub fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, LIMIT).with_context(|| format!("connect to {address}"))?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream), served: 0, open: true })
    }

    /// Whether the server has not said that it will close it.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Whether the server closed the idle connection before this request: no answer has begun on it, and it had served
    /// others. A client may send such a request again on another connection (RFC 9112, section 9.3.1).
    pub fn was_idle_close(&self, error: &anyhow::Error) -> bool {
        self.served > 0 && error.is::<ClosedBeforeAnswer>()
    }

    /// Sends a `GET` and reads the whole answer.
    pub fn get(&mut self, host: &str, path: &str) -> Result<Response> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: nebula-e2e\r\n\r\n");
        if self.stream.get_mut().write_all(request.as_bytes()).is_err() {
            return Err(ClosedBeforeAnswer.into());
        }
        let response = self.read()?;
        self.served += 1;
        self.open = !response.closes();
        Ok(response)
    }

    fn read(&mut self) -> Result<Response> {
        let line = match self.line() {
            Ok(Some(line)) => line,
            Ok(None) => return Err(ClosedBeforeAnswer.into()),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Err(ClosedBeforeAnswer.into()),
            Err(error) => return Err(error).context("read the status line"),
        };
        let status = line.split(' ').nth(1).and_then(|digits| digits.parse().ok());
        let status = status.with_context(|| format!("not a status line: {line:?}"))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?.context("closed within the headers")?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').with_context(|| format!("not a header: {line:?}"))?;
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
        let mut response = Response { status, headers, body: String::new() };
        let body = if response.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"))
        {
            self.chunks()?
        } else if let Some(length) = response.header("content-length") {
            self.exactly(length.parse().context("content-length")?)?
        } else if status == 204 || status == 304 {
            Vec::new()
        } else {
            bail!("a body without length or chunks");
        };
        response.body = String::from_utf8(body).context("the body is not UTF-8")?;
        Ok(response)
    }

    fn line(&mut self) -> std::io::Result<Option<String>> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        line.truncate(line.trim_end_matches(['\r', '\n']).len());
        Ok(Some(line))
    }

    fn exactly(&mut self, length: usize) -> Result<Vec<u8>> {
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).context("read the body")?;
        Ok(body)
    }

    fn chunks(&mut self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?.context("closed within the body")?;
            let length = line.split(';').next().unwrap_or_default().trim();
            let length = usize::from_str_radix(length, 16).with_context(|| format!("not a chunk: {line:?}"))?;
            if length == 0 {
                while !self.line()?.context("closed within the trailers")?.is_empty() {}
                return Ok(body);
            }
            body.extend(self.exactly(length)?);
            self.line()?;
        }
    }
}

#[derive(Debug)]
struct ClosedBeforeAnswer;

impl std::fmt::Display for ClosedBeforeAnswer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("the connection was closed before an answer")
    }
}

impl std::error::Error for ClosedBeforeAnswer {}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn answering(answers: &'static [&'static str]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a connection");
            let mut stream = BufReader::new(stream);
            for answer in answers {
                let mut line = String::new();
                while stream.read_line(&mut line).expect("a request") > 0 && !line.ends_with("\r\n\r\n") {}
                stream.get_mut().write_all(answer.as_bytes()).expect("to answer");
            }
        });
        address
    }

    #[test]
    fn reads_lengths_and_chunks_on_one_connection() {
        let address = answering(&[
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
            "HTTP/1.1 500 No\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n2\r\nab\r\n1;x=y\r\nc\r\n0\r\n\r\n",
        ]);
        let mut connection = Connection::open(address).expect("open");
        assert_eq!(connection.get("a", "/").expect("first").body, "hi");
        let second = connection.get("a", "/").expect("second");
        assert_eq!((second.status, second.body.as_str()), (500, "abc"));
        assert!(!connection.is_open());
    }

    #[test]
    fn only_a_connection_that_has_served_can_be_closed_while_idle() {
        let mut connection = Connection::open(answering(&["HTTP/1.1 204 x\r\n\r\n"])).expect("open");
        connection.get("a", "/").expect("first");
        let error = connection.get("a", "/").expect_err("closed");
        assert!(connection.was_idle_close(&error), "{error:#}");
        let mut fresh = Connection::open(answering(&[])).expect("open");
        let error = fresh.get("a", "/").expect_err("closed");
        assert!(!fresh.was_idle_close(&error));
    }
}
