//! Frames.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use moorgate_proto::codec::{Assembler, put_frame};
use moorgate_proto::envelope::member::client::REQUEST;
use moorgate_proto::envelope::{Envelope, Numbers};
use moorgate_proto::view::RequestView;

const PAYLOADS: [usize; 2] = [64, 1024];
const NUMBERS: Numbers = Numbers { seq: 1000, ack: 990 };

fn request(payload: &[u8]) -> RequestView<'_> {
    RequestView { command: 0x0201, version: 1, payload, ..RequestView::default() }
}

#[divan::bench(args = PAYLOADS)]
fn encode(bencher: Bencher<'_, '_>, payload: usize) {
    let payload = vec![7; payload];
    let mut out = Vec::with_capacity(4096);
    bencher.counter(BytesCount::new(payload.len())).bench_local(|| {
        out.clear();
        put_frame(&mut out, NUMBERS, REQUEST, black_box(&request(&payload)));
        out.len()
    });
}

#[divan::bench(args = PAYLOADS)]
fn decode(bencher: Bencher<'_, '_>, payload: usize) {
    let payload = vec![7; payload];
    let mut frame = Vec::new();
    put_frame(&mut frame, NUMBERS, REQUEST, &request(&payload));
    let mut assembler = Assembler::default();
    bencher.counter(BytesCount::new(payload.len())).bench_local(|| {
        let mut input = black_box(&frame[..]);
        let frame = assembler.next(&mut input, 65_536).unwrap().unwrap();
        let envelope = Envelope::decode(frame).unwrap();
        RequestView::decode(envelope.member.unwrap().1).unwrap().payload.len()
    });
}

/// The frame comes in two reads.
#[divan::bench(args = PAYLOADS)]
fn decode_in_two_pieces(bencher: Bencher<'_, '_>, payload: usize) {
    let payload = vec![7; payload];
    let mut frame = Vec::new();
    put_frame(&mut frame, NUMBERS, REQUEST, &request(&payload));
    let (head, tail) = frame.split_at(frame.len() / 2);
    let mut assembler = Assembler::default();
    bencher.counter(BytesCount::new(payload.len())).bench_local(|| {
        let (mut head, mut tail) = (black_box(head), black_box(tail));
        assert_eq!(assembler.next(&mut head, 65_536), Ok(None));
        let frame = assembler.next(&mut tail, 65_536).unwrap().unwrap();
        Envelope::decode(frame).unwrap().numbers
    });
}
