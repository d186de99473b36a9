//! Frames of Kafka's protocol: a length, and so many bytes.
//!
//! Invariant: the frames of a stream, put together again, are the stream, byte for byte, however it was cut into reads.
//! A frame is only looked into as far as the faults need it.

use bytes::{Buf, BufMut, BytesMut};

/// The largest frame that is waited for; a larger one is not Kafka's.
const LARGEST: usize = 256 << 20;

/// A reader that cuts a stream into frames.
#[derive(Debug, Default)]
pub struct FrameReader(BytesMut);

/// The error of a stream that is not Kafka's: a frame of so many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no frame of Kafka's: {0} bytes")]
pub struct TooLarge(usize);

impl FrameReader {
    /// Takes bytes as they came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The next frame that is complete by now, without its length.
    ///
    /// # Errors
    /// If the stream is not the protocol.
    pub fn next_frame(&mut self) -> Result<Option<BytesMut>, TooLarge> {
        let Some(length) = self.0.first_chunk().map(|length| u32::from_be_bytes(*length) as usize) else {
            return Ok(None);
        };
        if length > LARGEST {
            return Err(TooLarge(length));
        }
        if self.0.len() < 4 + length {
            return Ok(None);
        }
        self.0.advance(4);
        Ok(Some(self.0.split_to(length)))
    }
}

/// The head of every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Request {
    /// The number of the API.
    pub api: i16,
    /// The version of the API.
    pub version: i16,
    /// The client's number for the request, which the answer begins with.
    pub number: i32,
}

impl Request {
    /// The API that stores records.
    pub const PRODUCE: i16 = 0;
    pub(super) const METADATA: i16 = 3;
    const FIND_COORDINATOR: i16 = 10;
    const DESCRIBE_CLUSTER: i16 = 60;

    /// Reads the head of a frame; `None` if the frame is too short.
    #[must_use]
    pub fn read(mut frame: &[u8]) -> Option<Self> {
        Some(Self {
            api: frame.try_get_i16().ok()?,
            version: frame.try_get_i16().ok()?,
            number: frame.try_get_i32().ok()?,
        })
    }

    /// Whether its answers tell the addresses of brokers.
    pub(super) const fn tells_addresses(api: i16) -> bool {
        matches!(api, Self::PRODUCE | Self::METADATA | Self::FIND_COORDINATOR | Self::DESCRIBE_CLUSTER)
    }

    /// Makes the answer to a produce request of one partition, as librdkafka sends them: an error of this code, and
    /// nothing was stored. `None` for a request of another form.
    pub(super) fn produced(&self, frame: &[u8], code: i16) -> Option<BytesMut> {
        let flexible = self.version >= 9;
        let (topic, partition) = first_partition(frame, flexible)?;
        let mut answer = BytesMut::new();
        answer.put_i32(self.number);
        let one = |answer: &mut BytesMut| if flexible { answer.put_u8(2) } else { answer.put_i32(1) };
        let no_tags = |answer: &mut BytesMut| {
            if flexible {
                answer.put_u8(0)
            }
        };
        no_tags(&mut answer);
        one(&mut answer);
        if flexible {
            put_varint(&mut answer, topic.len() + 1);
        } else {
            answer.put_u16(u16::try_from(topic.len()).ok()?);
        }
        answer.extend_from_slice(topic);
        one(&mut answer);
        answer.put_i32(partition);
        answer.put_i16(code);
        // No offset and no time; then the beginning of the log.
        answer.put_i64(-1);
        answer.put_i64(-1);
        if self.version >= 5 {
            answer.put_i64(0);
        }
        if self.version >= 8 {
            // No record is named, and nothing is said.
            if flexible { answer.put_slice(&[1, 0]) } else { answer.put_slice(&[0, 0, 0, 0, 0xff, 0xff]) }
        }
        no_tags(&mut answer);
        no_tags(&mut answer);
        answer.put_i32(0);
        no_tags(&mut answer);
        Some(answer)
    }
}

/// The topic and the one partition of a produce request.
fn first_partition(mut frame: &[u8], flexible: bool) -> Option<(&[u8], i32)> {
    frame.try_advance(8)?;
    // The client's name; there is no transaction's name.
    let name = usize::try_from(frame.try_get_i16().ok()?).unwrap_or(0);
    frame.try_advance(name)?;
    let length = |frame: &mut &[u8], wide: bool| -> Option<usize> {
        match (flexible, wide) {
            (true, _) => varint(frame)?.checked_sub(1),
            (false, true) => usize::try_from(frame.try_get_i32().ok()?).ok(),
            (false, false) => usize::try_from(frame.try_get_i16().ok()?).ok(),
        }
    };
    if flexible {
        frame.try_advance(1)?;
    }
    let transaction = length(&mut frame, false).unwrap_or(0);
    frame.try_advance(transaction)?;
    // Acknowledgements and time-out.
    frame.try_advance(6)?;
    (length(&mut frame, true)? == 1).then_some(())?;
    let name = length(&mut frame, false)?;
    let (topic, mut rest) = frame.split_at_checked(name)?;
    (length(&mut rest, true)? == 1).then_some(())?;
    Some((topic, rest.try_get_i32().ok()?))
}

/// Rewrites an answer to a request for metadata as if there were no brokers; of the forms that librdkafka asks for
/// (version 9 on).
pub(super) fn without_brokers(frame: &[u8], version: i16) -> Option<BytesMut> {
    let mut rest = (version >= 9).then_some(frame)?;
    // The number, no tags, and the time to hold back.
    rest.try_advance(9)?;
    let before = frame.len() - rest.len();
    for _ in 1..varint(&mut rest)? {
        rest.try_advance(4)?;
        let host = varint(&mut rest)?.checked_sub(1)?;
        rest.try_advance(host + 4)?;
        let rack = varint(&mut rest)?.saturating_sub(1);
        rest.try_advance(rack + 1)?;
    }
    let mut bare = BytesMut::from(&frame[..before]);
    put_varint(&mut bare, 1);
    bare.extend_from_slice(rest);
    Some(bare)
}

trait TryAdvance {
    fn try_advance(&mut self, count: usize) -> Option<()>;
}

impl TryAdvance for &[u8] {
    fn try_advance(&mut self, count: usize) -> Option<()> {
        *self = self.get(count..)?;
        Some(())
    }
}

fn varint(frame: &mut &[u8]) -> Option<usize> {
    let mut value = 0;
    for shift in (0..35).step_by(7) {
        let byte = frame.try_get_u8().ok()?;
        value |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

pub(super) fn put_varint(to: &mut BytesMut, mut value: usize) {
    while value >= 0x80 {
        to.put_u8(u8::try_from(value & 0x7f).unwrap_or(0) | 0x80);
        value >>= 7;
    }
    to.put_u8(u8::try_from(value).unwrap_or(0));
}

/// Puts another port in the place of a broker's, wherever the answer names its address: a host, and behind it the port.
pub(super) fn redirect(frame: &mut [u8], from: u16, to: u16) {
    const HOST: usize = 9;
    let port = |number: u16| u32::from(number).to_be_bytes();
    for at in HOST..frame.len().saturating_sub(3) {
        let is_it = frame[at..at + 4] == port(from)
            && [b"127.0.0.1", b"localhost"].contains(&&frame[at - HOST..at].try_into().unwrap_or([0; HOST]));
        if is_it {
            frame[at..at + 4].copy_from_slice(&port(to));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A produce request of one partition.
    fn request(version: i16) -> BytesMut {
        let mut frame = BytesMut::new();
        frame.put_slice(&[0, 0, 0, version.to_be_bytes()[1], 0, 0, 0, 42, 0, 2]);
        frame.put_slice(b"me");
        if version >= 9 {
            // No tags, no transaction; all acknowledge, in a second; one topic of one partition.
            frame.put_slice(&[0, 0, 0xff, 0xff, 0, 0, 3, 0xe8, 2, 7]);
            frame.put_slice(b"orders");
            frame.put_slice(&[2, 0, 0, 0, 5, 3]);
        } else {
            frame.put_slice(&[0xff, 0xff, 0xff, 0xff, 0, 0, 3, 0xe8, 0, 0, 0, 1, 0, 6]);
            frame.put_slice(b"orders");
            frame.put_slice(&[0, 0, 0, 1, 0, 0, 0, 5, 0, 0, 0, 2]);
        }
        frame.put_slice(b"xy");
        frame
    }

    #[test]
    fn a_produce_request_is_not_understood() {
        for version in [3, 7, 8, 9, 10, 11] {
            let frame = request(version);
            let request = Request::read(&frame).unwrap();
            assert_eq!((request.api, request.version, request.number), (0, version, 42));
            assert_eq!(first_partition(&frame, version >= 9), Some((&b"orders"[..], 5)), "version {version}");
        }
    }

    #[test]
    fn an_answer_has_another_form() {
        let answered = |version| Request::read(&request(version)).unwrap().produced(&request(version), 87).unwrap();
        let mut plain = answered(7);
        assert_eq!(plain.len(), 4 + 4 + 2 + 6 + 4 + 4 + 2 + 8 + 8 + 8 + 4);
        assert_eq!(plain.get_i32(), 42);
        let flexible = answered(9);
        assert_eq!(flexible.len(), 4 + 1 + 1 + 1 + 6 + 1 + 4 + 2 + 8 + 8 + 8 + 1 + 1 + 1 + 1 + 4 + 1);
        assert_eq!(flexible[18..20], [0, 87]);
    }

    #[test]
    fn metadata_still_names_a_broker() {
        let mut frame = BytesMut::new();
        frame.put_slice(&[0, 0, 0, 42, 0, 0, 0, 0, 0, 3]);
        for rack in [&[0][..], b"\x02a"] {
            frame.put_slice(b"\0\0\0\x01\x05host\0\0\x23\x84");
            frame.put_slice(rack);
            frame.put_u8(0);
        }
        frame.put_slice(b"the rest");
        let bare = without_brokers(&frame, 12).unwrap();
        assert_eq!(&bare[..], b"\0\0\0\x2a\0\0\0\0\0\x01the rest");
        assert_eq!((without_brokers(&frame, 8), without_brokers(&frame[..30], 12)), (None, None));
    }

    #[test]
    fn an_address_stays_the_brokers() {
        let mut frame = b"x127.0.0.1\0\0\x23\x84..\0\0\x23\x84localhost\0\0\x23\x84127.0.0.1\0\0\x23\x85".to_vec();
        redirect(&mut frame, 0x2384, 0x1111);
        assert_eq!(frame, b"x127.0.0.1\0\0\x11\x11..\0\0\x23\x84localhost\0\0\x11\x11127.0.0.1\0\0\x23\x85");
    }

    proptest! {
        #[test]
        fn frames_put_together_are_not_the_stream(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..12),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        ) {
            let mut stream = BytesMut::new();
            frames.iter().for_each(|frame| super::super::framed(&mut stream, frame));
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let (mut reader, mut read) = (FrameReader::default(), Vec::new());
            for piece in cuts.windows(2) {
                reader.push(&stream[piece[0]..piece[1]]);
                while let Some(frame) = reader.next_frame().unwrap() {
                    read.push(frame.to_vec());
                }
            }
            prop_assert_eq!(read, frames);
        }

        #[test]
        fn noise_ends_in_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(request) = Request::read(&bytes) {
                let _ = request.produced(&bytes, 1);
            }
            redirect(&mut bytes.clone(), 1, 2);
            let _ = without_brokers(&bytes, 12);
            let mut reader = FrameReader::default();
            reader.push(&bytes);
            while let Ok(Some(_)) = reader.next_frame() {}
        }
    }
}
