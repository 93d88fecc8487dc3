//! A client by hand: any bytes out, whole frames in, and patience that ends.

use moorgate_proto::codec::{put_bare_frame, put_frame};
use moorgate_proto::envelope::Numbers;
use moorgate_proto::envelope::member::client;
use moorgate_proto::status::Code;
use moorgate_proto::v1::{self, Execution, Reason, Source, gateway_frame::Member};
use moorgate_proto::view::{Body, RequestView};
use prost::Message;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// Far longer than anything here takes: whatever has not come by then does not come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes that stand where a message is expected.
pub(crate) struct Raw<'a>(pub(crate) &'a [u8]);

impl Body for Raw<'_> {
    fn body_len(&self) -> usize {
        self.0.len()
    }
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.0);
    }
}

/// A frame with one member; a number that is 0 is left out.
pub(crate) fn frame(up_seq: u64, ack: u64, member: u32, body: &impl Body) -> Vec<u8> {
    let mut out = Vec::new();
    put_frame(&mut out, Numbers { seq: up_seq, ack }, member, body);
    out
}

/// A frame without a member.
pub(crate) fn bare(up_seq: u64, ack: u64) -> Vec<u8> {
    let mut out = Vec::new();
    put_bare_frame(&mut out, Numbers { seq: up_seq, ack });
    out
}

/// Any bytes as a frame.
pub(crate) fn framed(content: &[u8]) -> Vec<u8> {
    let mut out = u32::try_from(content.len()).unwrap().to_be_bytes().to_vec();
    out.extend_from_slice(content);
    out
}

/// An anonymous Hello.
pub(crate) fn hello() -> v1::Hello {
    v1::Hello { version_min: 1, version_max: 1, application: "tests".to_owned(), ..v1::Hello::default() }
}

/// A Hello as a frame.
pub(crate) fn hello_frame(hello: &v1::Hello) -> Vec<u8> {
    frame(0, 0, client::HELLO, hello)
}

/// A Request as a frame.
pub(crate) fn request(up_seq: u64, command: u32, payload: &[u8]) -> Vec<u8> {
    frame(up_seq, 0, client::REQUEST, &RequestView { command, payload, ..RequestView::default() })
}

/// A Request that has so many milliseconds.
pub(crate) fn request_within(up_seq: u64, command: u32, timeout_ms: u32) -> Vec<u8> {
    frame(up_seq, 0, client::REQUEST, &RequestView { command, timeout_ms, ..RequestView::default() })
}

/// A Cancel as a frame.
pub(crate) fn cancel(up_seq: u64) -> Vec<u8> {
    frame(0, 0, client::CANCEL, &v1::Cancel { up_seq })
}

/// A Ping as a frame.
pub(crate) fn ping(nonce: u64) -> Vec<u8> {
    frame(0, 0, client::PING, &v1::Ping { nonce, next_ms: 0 })
}

/// One connection.
pub(crate) struct RawClient {
    pub(crate) stream: TcpStream,
}

impl RawClient {
    /// A connection that has said nothing yet.
    pub(crate) fn connect(address: SocketAddr) -> RawClient {
        RawClient::over(TcpStream::connect_timeout(&address, PATIENCE).unwrap())
    }

    /// Over a stream that is connected.
    pub(crate) fn over(stream: TcpStream) -> RawClient {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        RawClient { stream }
    }

    /// A connection with an anonymous session.
    pub(crate) fn open(address: SocketAddr) -> RawClient {
        let mut client = RawClient::connect(address);
        client.send(&hello_frame(&hello()));
        client.welcome();
        client
    }

    /// A connection with a session of this access token, from this device.
    pub(crate) fn log_in(address: SocketAddr, access_token: String, device_id: &str) -> RawClient {
        let mut client = RawClient::connect(address);
        let device_id = device_id.to_owned();
        client.send(&hello_frame(&v1::Hello { access_token, device_id, ..hello() }));
        client.welcome();
        client
    }

    /// Sends bytes.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends bytes to somebody who may be gone.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Ends this side's stream.
    pub(crate) fn finish(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// The next frame; `None`: the gateway has closed.
    pub(crate) fn next(&mut self) -> Option<v1::GatewayFrame> {
        let mut length = [0; 4];
        let mut have = 0;
        while have < length.len() {
            match self.stream.read(&mut length[have..]) {
                Ok(0) if have == 0 => return None,
                Ok(0) => panic!("the gateway ended within a length"),
                Ok(count) => have += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("nothing from the gateway: {error}"),
            }
        }
        let mut content = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut content).unwrap();
        Some(v1::GatewayFrame::decode(&content[..]).unwrap())
    }

    /// The next frame, which must come.
    pub(crate) fn frame(&mut self) -> v1::GatewayFrame {
        self.next().expect("the gateway has closed")
    }

    /// The next frame's member, which must be there.
    pub(crate) fn member(&mut self) -> Member {
        self.frame().member.expect("a frame without a member")
    }

    /// The next frame must be a Welcome.
    pub(crate) fn welcome(&mut self) -> v1::Welcome {
        match self.member() {
            Member::Welcome(welcome) => welcome,
            other => panic!("no Welcome: {other:?}"),
        }
    }

    /// The next frame must be a Response.
    pub(crate) fn response(&mut self) -> v1::Response {
        match self.member() {
            Member::Response(response) => response,
            other => panic!("no Response: {other:?}"),
        }
    }

    /// The next frame must be a Push; its number.
    pub(crate) fn push(&mut self) -> (u64, v1::Push) {
        let frame = self.frame();
        match frame.member {
            Some(Member::Push(push)) => (frame.down_seq, push),
            other => panic!("no Push: {other:?}"),
        }
    }

    /// The next frame must be a Gap; its number.
    pub(crate) fn gap(&mut self) -> (u64, v1::Gap) {
        let frame = self.frame();
        match frame.member {
            Some(Member::Gap(gap)) => (frame.down_seq, gap),
            other => panic!("no Gap: {other:?}"),
        }
    }

    /// The next frame must be a Notice.
    pub(crate) fn notice(&mut self) -> v1::Notice {
        match self.member() {
            Member::Notice(notice) => notice,
            other => panic!("no Notice: {other:?}"),
        }
    }

    /// The next frame must be the final Error, and the end of the stream must follow.
    pub(crate) fn error(&mut self) -> v1::Error {
        match self.member() {
            Member::Error(error) => {
                self.closed();
                error
            }
            other => panic!("no Error: {other:?}"),
        }
    }

    /// The reason of the final Error.
    pub(crate) fn error_reason(&mut self) -> Reason {
        self.error().reason()
    }

    /// The gateway must have closed.
    pub(crate) fn closed(&mut self) {
        if let Some(frame) = self.next() {
            panic!("a frame where the end was due: {frame:?}");
        }
    }

    /// A Ping must be answered next: nothing else was to come before.
    pub(crate) fn nothing_else(&mut self) {
        self.send(&ping(0x1d1e));
        match self.member() {
            Member::Pong(pong) => assert_eq!(pong.nonce, 0x1d1e),
            other => panic!("something came: {other:?}"),
        }
    }

    /// Asks, and takes the Response, which must be to this request.
    pub(crate) fn ask(&mut self, up_seq: u64, command: u32, payload: &[u8]) -> v1::Response {
        self.send(&request(up_seq, command, payload));
        let response = self.response();
        assert_eq!(response.up_seq, up_seq);
        response
    }
}

/// The gateway's own word about a request, and what it knows of its execution.
pub(crate) fn assert_gateway_says(response: &v1::Response, code: Code, reason: Reason, execution: Execution) {
    assert_eq!((Code::from_wire(response.status), response.reason()), (code, reason));
    assert_eq!((response.source(), response.execution()), (Source::Gateway, execution));
    assert!(response.payload.is_empty());
}

/// Requests 1 to `last` in one segment, so that the gateway sees them in one turn.
pub(crate) fn ask_many(client: &mut RawClient, command: u32, last: u64) {
    let requests: Vec<Vec<u8>> = (1..=last).map(|up_seq| request(up_seq, command, b"x")).collect();
    client.send(&requests.concat());
}
