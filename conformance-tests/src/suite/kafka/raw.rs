//! Records of any bytes, as other programs write them: a produce request made by hand, since clients take no name of a
//! header that is not text.

use std::io::{Read, Write};
use std::net::TcpStream;

/// A record as it stands in a batch.
#[derive(Debug, Clone, Default)]
#[allow(clippy::exhaustive_structs)] // written by every test
pub struct RawRecord {
    /// The key; `None` for null.
    pub key: Option<Vec<u8>>,
    /// The value; `None` for null.
    pub value: Option<Vec<u8>>,
    /// Names and values of the headers, in order.
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// Milliseconds since the Unix epoch, as the producer says.
    pub time: i64,
}

impl RawRecord {
    fn written(&self) -> Vec<u8> {
        let mut record = vec![0];
        varint(&mut record, 0);
        varint(&mut record, 0);
        sized(&mut record, self.key.as_deref());
        sized(&mut record, self.value.as_deref());
        varint(&mut record, self.headers.len() as i64);
        for (name, value) in &self.headers {
            sized(&mut record, Some(name));
            sized(&mut record, value.as_deref());
        }
        let mut framed = Vec::new();
        varint(&mut framed, record.len() as i64);
        framed.extend(record);
        framed
    }
}

/// Stores one record, and blocks meanwhile. Returns its offset.
///
/// # Errors
/// What went wrong with the connection, or the broker's code.
pub fn produce(address: &str, topic: &str, partition: i32, record: &RawRecord) -> Result<i64, String> {
    let request = request(topic, partition, record);
    let exchange = || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(&request)?;
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    };
    let answer = exchange().map_err(|error| format!("{address}: {error}"))?;
    // Correlation, topics, the topic's name, partitions; then partition, code and offset.
    let at = 4 + 4 + 2 + topic.len() + 4 + 4;
    let field = |from: usize, length: usize| answer.get(from..from + length).ok_or("a short answer".to_owned());
    let code = field(at, 2)?.iter().fold(0_i16, |code, byte| code << 8 | i16::from(*byte));
    if code != 0 {
        return Err(format!("the broker's code is {code}"));
    }
    Ok(field(at + 2, 8)?.iter().fold(0, |offset, byte| offset << 8 | i64::from(*byte)))
}

/// A produce request, version 3, with a batch of one record.
fn request(topic: &str, partition: i32, record: &RawRecord) -> Vec<u8> {
    let mut tail = Vec::new();
    tail.extend([0_u8; 2]);
    tail.extend(0_i32.to_be_bytes());
    tail.extend(record.time.to_be_bytes());
    tail.extend(record.time.to_be_bytes());
    tail.extend((-1_i64).to_be_bytes());
    tail.extend((-1_i16).to_be_bytes());
    tail.extend((-1_i32).to_be_bytes());
    tail.extend(1_i32.to_be_bytes());
    tail.extend(record.written());
    let mut batch = Vec::new();
    batch.extend(0_i64.to_be_bytes());
    batch.extend((tail.len() as i32 + 9).to_be_bytes());
    batch.extend((-1_i32).to_be_bytes());
    batch.push(2);
    batch.extend(crc32c(&tail).to_be_bytes());
    batch.extend(tail);
    let text = |text: &str| [&(text.len() as i16).to_be_bytes()[..], text.as_bytes()].concat();
    let mut body = Vec::new();
    body.extend(0_i16.to_be_bytes());
    body.extend(3_i16.to_be_bytes());
    body.extend(1_i32.to_be_bytes());
    body.extend(text("raw"));
    body.extend((-1_i16).to_be_bytes());
    body.extend((-1_i16).to_be_bytes());
    body.extend(5_000_i32.to_be_bytes());
    body.extend(1_i32.to_be_bytes());
    body.extend(text(topic));
    body.extend(1_i32.to_be_bytes());
    body.extend(partition.to_be_bytes());
    body.extend((batch.len() as i32).to_be_bytes());
    body.extend(batch);
    [&(body.len() as i32).to_be_bytes()[..], &body].concat()
}

fn sized(to: &mut Vec<u8>, bytes: Option<&[u8]>) {
    varint(to, bytes.map_or(-1, |bytes| bytes.len() as i64));
    to.extend(bytes.unwrap_or_default());
}

fn varint(to: &mut Vec<u8>, value: i64) {
    let mut rest = (value << 1 ^ value >> 63) as u64;
    while rest >= 0x80 {
        to.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    to.push(rest as u8);
}

fn crc32c(data: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !data.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}
