//! A publisher with a bare socket: it writes what no client would.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

/// A connection that publishes any bytes.
#[derive(Debug)]
pub struct Raw {
    socket: BufReader<TcpStream>,
}

impl Raw {
    pub fn connect(port: u16) -> Self {
        let mut socket = BufReader::new(TcpStream::connect(("127.0.0.1", port)).unwrap());
        socket.read_line(&mut String::new()).unwrap();
        socket.get_mut().write_all(b"CONNECT {\"verbose\":false,\"headers\":true}\r\nSUB _I.raw 1\r\n").unwrap();
        Self { socket }
    }

    /// Stores a record with this header block. Returns its position, or the server's words where it stores nothing.
    pub fn store(&mut self, subject: &str, block: &[u8], payload: &[u8]) -> Result<u64, String> {
        let total = block.len() + payload.len();
        let mut sent = format!("HPUB {subject} _I.raw {} {total}\r\n", block.len()).into_bytes();
        sent.extend_from_slice(block);
        sent.extend_from_slice(payload);
        sent.extend_from_slice(b"\r\n");
        self.answer(&sent)
    }

    /// Stores a record without headers.
    pub fn store_bare(&mut self, subject: &str, payload: &str) -> Result<u64, String> {
        self.answer(format!("PUB {subject} _I.raw {}\r\n{payload}\r\n", payload.len()).as_bytes())
    }

    fn answer(&mut self, sent: &[u8]) -> Result<u64, String> {
        self.socket.get_mut().write_all(sent).unwrap();
        loop {
            let mut line = String::new();
            if self.socket.read_line(&mut line).unwrap() == 0 || line.starts_with("-ERR") {
                return Err(line);
            }
            if line.starts_with("PING") {
                self.socket.get_mut().write_all(b"PONG\r\n").unwrap();
            }
            if line.starts_with("MSG") || line.starts_with("HMSG") {
                let size: usize = line.split_whitespace().last().unwrap().parse().unwrap();
                let mut body = vec![0; size + 2];
                self.socket.read_exact(&mut body).unwrap();
                let body = String::from_utf8_lossy(&body).into_owned();
                let sequence = body
                    .split_once("\"seq\":")
                    .and_then(|(_, rest)| rest.trim_start().split(|c: char| !c.is_ascii_digit()).next()?.parse().ok());
                return sequence.filter(|sequence| *sequence > 0).ok_or(body);
            }
        }
    }
}
