//! What is asked of a DNS server, and what it answers. Pure.
//!
//! Sources: RFC 1034, 1035 (messages), 2308 (negative answers), 2782 (SRV), 6891 (EDNS).

use domain::base::iana::{Class, Opcode, Rcode, Rtype};
use domain::base::record::ParsedRecord;
use domain::base::{Message, MessageBuilder, Name, ParsedName, Record, ToName};
use domain::rdata::{A, Aaaa, Cname, Soa, Srv};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// A name, as we keep it.
pub(super) type Host = Name<Vec<u8>>;

/// What an answer may be as long as, over UDP: what fits everywhere without fragments.
const UDP_BYTES: u16 = 1232;
/// Aliases of aliases that are followed.
const ALIASES_MAX: usize = 8;
/// Records of an answer that are looked at.
const RECORDS_MAX: usize = 16 * 1024;

/// A question: a name and what of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) name: Host,
    pub(super) rtype: Rtype,
}

impl Question {
    /// The message; with EDNS a server may answer with more than 512 bytes.
    pub(super) fn to_bytes(&self, id: u16, edns: bool) -> Vec<u8> {
        let mut builder = MessageBuilder::new_vec();
        builder.header_mut().set_id(id);
        builder.header_mut().set_rd(true);
        let mut builder = builder.question();
        // Nothing is pushed that could be too much for a message.
        let _ = builder.push((&self.name, self.rtype));
        let mut builder = builder.additional();
        if edns {
            let _ = builder.opt(|opt| {
                opt.set_udp_payload_size(UDP_BYTES);
                Ok(())
            });
        }
        builder.finish()
    }

    /// What a message says to it; `None`: it is no answer to this question.
    pub(super) fn read(&self, id: u16, bytes: &[u8]) -> Option<Reply> {
        let message = Message::from_octets(bytes).ok()?;
        let header = message.header();
        if header.id() != id || !header.qr() || header.opcode() != Opcode::QUERY {
            return None;
        }
        let rcode = header.rcode();
        match message.sole_question() {
            Ok(asked) => {
                let is_ours = asked.qtype() == self.rtype
                    && asked.qclass() == Class::IN
                    && asked.qname().name_eq(&self.name);
                if !is_ours {
                    return None;
                }
            }
            // Who does not understand the question may leave it out.
            Err(_) if rcode != Rcode::NOERROR && rcode != Rcode::NXDOMAIN => {}
            Err(_) => return None,
        }
        if header.tc() {
            return Some(Reply::Truncated);
        }
        match rcode {
            Rcode::NOERROR | Rcode::NXDOMAIN => {
                Some(self.records(&message).map_or(Reply::Malformed, Reply::Records))
            }
            rcode => Some(Reply::Failed(rcode)),
        }
    }

    /// A record whose data cannot be read leaves the others as they are, unless it is all there is. What follows the
    /// answer is of use and not needed: whatever is wrong there takes nothing from the answer.
    fn records(&self, message: &Message<&[u8]>) -> Option<Records> {
        let mut all = Sections::default();
        for record in message.answer().ok()?.take(RECORDS_MAX) {
            all.take(&record.ok()?);
        }
        let (name, aliased) = all.follow(&self.name);
        let addresses = all.addresses.get(&name).map(|(addresses, ttl)| (addresses.clone(), *ttl));
        let targets: Vec<Target> = all
            .targets
            .iter()
            .filter(|(owner, ..)| *owner == name)
            .map(|(_, target, _)| target.clone())
            .collect();
        let target_ttl = all.targets.iter().filter(|(owner, ..)| *owner == name).map(|(.., ttl)| *ttl).min();
        let (addresses, address_ttl) = addresses.unzip();
        let ttl = [aliased, target_ttl, address_ttl].into_iter().flatten().min();
        let is_empty = targets.is_empty() && addresses.is_none();
        if is_empty && all.unreadable > 0 {
            return None;
        }
        Some(Records {
            name,
            addresses: addresses.unwrap_or_default(),
            targets,
            ttl: if is_empty { ttl.into_iter().chain(negative_ttl(message)).min() } else { ttl },
            beside: beside(message),
            unreadable: all.unreadable,
        })
    }
}

/// How long it holds that there is nothing.
fn negative_ttl(message: &Message<&[u8]>) -> Option<Duration> {
    let records = message.authority().ok()?.take(RECORDS_MAX).map_while(Result::ok);
    let soa = records.filter(|record| record.rtype() == Rtype::SOA).filter_map(|record| {
        let soa: Record<ParsedName<_>, Soa<ParsedName<_>>> = record.to_record().ok()??;
        Some(soa.ttl().into_duration().min(soa.data().minimum().into_duration()))
    });
    soa.last()
}

/// Addresses of the additional section, for the targets of SRV records alone.
fn beside(message: &Message<&[u8]>) -> Addresses {
    let mut beside = Sections::default();
    for record in message.additional().into_iter().flatten().take(RECORDS_MAX).map_while(Result::ok) {
        beside.take(&record);
    }
    beside.addresses
}

/// A server's answer to the question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    /// It does not fit: to be asked again over TCP.
    Truncated,
    /// The server does not know, or does not want to.
    Failed(Rcode),
    /// It cannot be read.
    Malformed,
    /// What there is; there may be nothing.
    Records(Records),
}

/// Addresses of a name, and how long they hold.
type Addresses = BTreeMap<Host, (Vec<IpAddr>, Duration)>;

/// What an answer has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Records {
    /// The name asked for, or what it is an alias of.
    pub(super) name: Host,
    /// Its addresses.
    pub(super) addresses: Vec<IpAddr>,
    /// Its SRV records.
    pub(super) targets: Vec<Target>,
    /// How long this holds; `None`: the server does not say.
    pub(super) ttl: Option<Duration>,
    /// Addresses of other names that came along.
    pub(super) beside: Addresses,
    /// Records of the answer that are left out, because their data cannot be read.
    pub(super) unreadable: usize,
}

/// One SRV record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) priority: u16,
    pub(super) weight: u16,
    pub(super) port: u16,
    pub(super) host: Host,
}

/// The records of a section that are of use.
#[derive(Debug, Default)]
struct Sections {
    aliases: BTreeMap<Host, (Host, Duration)>,
    addresses: Addresses,
    targets: Vec<(Host, Target, Duration)>,
    /// Records without data that can be read.
    unreadable: usize,
}

impl Sections {
    fn take(&mut self, record: &ParsedRecord<'_, &[u8]>) {
        if record.class() == Class::IN && self.read(record).is_none() {
            self.unreadable = self.unreadable.saturating_add(1);
        }
    }

    /// `None`: its data cannot be read.
    fn read(&mut self, record: &ParsedRecord<'_, &[u8]>) -> Option<()> {
        let (owner, ttl) = (record.owner().to_vec(), record.ttl().into_duration());
        match record.rtype() {
            Rtype::A => {
                let record: Record<_, A> = record.to_record().ok()??;
                self.address(owner, record.data().addr().into(), ttl);
            }
            Rtype::AAAA => {
                let record: Record<_, Aaaa> = record.to_record().ok()??;
                self.address(owner, record.data().addr().into(), ttl);
            }
            Rtype::CNAME => {
                let record: Record<_, Cname<ParsedName<_>>> = record.to_record().ok()??;
                self.aliases.insert(owner, (record.data().cname().to_vec(), ttl));
            }
            Rtype::SRV => {
                let record: Record<_, Srv<ParsedName<_>>> = record.to_record().ok()??;
                let srv = record.data();
                let target = Target {
                    priority: srv.priority(),
                    weight: srv.weight(),
                    port: srv.port(),
                    host: srv.target().to_vec(),
                };
                self.targets.push((owner, target, ttl));
            }
            _ => {}
        }
        Some(())
    }

    fn address(&mut self, owner: Host, address: IpAddr, ttl: Duration) {
        let (addresses, least) = self.addresses.entry(owner).or_insert_with(|| (Vec::new(), ttl));
        addresses.push(address);
        *least = ttl.min(*least);
    }

    /// Where the aliases of a name lead, and how long that holds.
    fn follow(&self, name: &Host) -> (Host, Option<Duration>) {
        let (mut name, mut least) = (name.clone(), None);
        for _ in 0..ALIASES_MAX {
            let Some((next, ttl)) = self.aliases.get(&name) else { break };
            least = Some(least.map_or(*ttl, |least: Duration| least.min(*ttl)));
            name = next.clone();
        }
        (name, least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::base::Ttl;
    use domain::base::message_builder::AnswerBuilder;
    use proptest::prelude::*;

    fn host(name: &str) -> Host {
        name.parse().unwrap()
    }

    fn question(name: &str, rtype: Rtype) -> Question {
        Question { name: host(name), rtype }
    }

    /// The beginning of an answer to a question.
    fn answer_to(question: &Question, id: u16, rcode: Rcode) -> AnswerBuilder<Vec<u8>> {
        let asked = question.to_bytes(id, true);
        let asked = Message::from_octets(asked).unwrap();
        MessageBuilder::new_vec().start_answer(&asked, rcode).unwrap()
    }

    fn read(question: &Question, bytes: &[u8]) -> Records {
        match question.read(7, bytes) {
            Some(Reply::Records(records)) => records,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn addresses_are_found_behind_aliases_and_nowhere_else() {
        let question = question("Chat.internal", Rtype::A);
        let mut answer = answer_to(&question, 7, Rcode::NOERROR);
        let ttl = Ttl::from_secs;
        answer.push((host("chat.internal"), ttl(9), Cname::new(host("lb.internal")))).unwrap();
        answer.push((host("lb.internal"), ttl(60), A::from_octets(192, 0, 2, 1))).unwrap();
        answer.push((host("lb.internal"), ttl(50), A::from_octets(192, 0, 2, 2))).unwrap();
        answer.push((host("evil.internal"), ttl(1), A::from_octets(192, 0, 2, 3))).unwrap();
        let records = read(&question, &answer.finish());
        assert_eq!(records.addresses, [IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2])]);
        assert_eq!((records.name, records.ttl), (host("lb.internal"), Some(Duration::from_secs(9))));
    }

    #[test]
    fn aliases_that_go_round_lead_nowhere() {
        let question = question("a.internal", Rtype::A);
        let mut answer = answer_to(&question, 7, Rcode::NOERROR);
        answer.push((host("a.internal"), Ttl::from_secs(1), Cname::new(host("b.internal")))).unwrap();
        answer.push((host("b.internal"), Ttl::from_secs(1), Cname::new(host("a.internal")))).unwrap();
        assert!(read(&question, &answer.finish()).addresses.is_empty());
    }

    #[test]
    fn services_come_with_the_addresses_of_their_targets() {
        let question = question("_chat._tcp.internal", Rtype::SRV);
        let mut answer = answer_to(&question, 7, Rcode::NOERROR);
        let srv = Srv::new(1, 10, 7100, host("n1.internal"));
        answer.push((host("_chat._tcp.internal"), Ttl::from_secs(5), srv)).unwrap();
        let mut answer = answer.additional();
        answer.push((host("n1.internal"), Ttl::from_secs(3), A::from_octets(192, 0, 2, 1))).unwrap();
        let records = read(&question, &answer.finish());
        let target = Target { priority: 1, weight: 10, port: 7100, host: host("n1.internal") };
        assert_eq!(records.targets, [target]);
        let beside = (vec![IpAddr::from([192, 0, 2, 1])], Duration::from_secs(3));
        assert_eq!(records.beside.get(&host("N1.internal")), Some(&beside));
    }

    #[test]
    fn nothing_is_an_answer_too_and_holds_as_long_as_its_zone_says() {
        for rcode in [Rcode::NOERROR, Rcode::NXDOMAIN] {
            let question = question("gone.internal", Rtype::A);
            let mut answer = answer_to(&question, 7, rcode).authority();
            let soa = Soa::new(
                host("ns.internal"),
                host("root.internal"),
                1.into(),
                Ttl::from_secs(1),
                Ttl::from_secs(1),
                Ttl::from_secs(1),
                Ttl::from_secs(20),
            );
            answer.push((host("internal"), Ttl::from_secs(600), soa)).unwrap();
            let records = read(&question, &answer.finish());
            assert_eq!((records.addresses.len(), records.ttl), (0, Some(Duration::from_secs(20))));
        }
    }

    #[test]
    fn what_is_no_answer_to_the_question_is_not_read() {
        let asked = question("chat.internal", Rtype::A);
        let good = answer_to(&asked, 7, Rcode::NOERROR).finish();
        assert!(asked.read(7, &good).is_some());
        assert_eq!(asked.read(8, &good), None, "another id");
        assert_eq!(question("other.internal", Rtype::A).read(7, &good), None);
        assert_eq!(question("chat.internal", Rtype::AAAA).read(7, &good), None);
        assert_eq!(asked.read(7, &asked.to_bytes(7, true)), None, "a question is no answer");
        let refused = answer_to(&asked, 7, Rcode::REFUSED).finish();
        assert_eq!(asked.read(7, &refused), Some(Reply::Failed(Rcode::REFUSED)));
        let mut truncated = answer_to(&asked, 7, Rcode::NOERROR);
        truncated.header_mut().set_tc(true);
        assert_eq!(asked.read(7, &truncated.finish()), Some(Reply::Truncated));
    }

    /// An answer with these records, each of one type and as many bytes of data.
    fn answer_of(question: &Question, records: &[(Rtype, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = answer_to(question, 7, Rcode::NOERROR).finish();
        for (rtype, data) in records {
            // The name of the question, class IN, 9 s.
            bytes.extend([0xc0, 12]);
            bytes.extend(rtype.to_int().to_be_bytes());
            bytes.extend([0, 1, 0, 0, 0, 9]);
            bytes.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
            bytes.extend(data);
        }
        bytes[6..8].copy_from_slice(&u16::try_from(records.len()).unwrap().to_be_bytes());
        bytes
    }

    #[test]
    fn one_record_without_readable_data_leaves_the_others() {
        let srv = |host: u8| {
            let host = [2, b'n', b'0' + host, 0];
            [&[0, 1, 0, 10, 0x1b, 0xbc][..], &host].concat()
        };
        let asked = question("_chat._tcp.internal", Rtype::SRV);
        let good = [srv(1), srv(2)].map(|data| (Rtype::SRV, data));
        let expected = read(&asked, &answer_of(&asked, &good)).targets;
        assert_eq!(expected.len(), 2);
        let longer = [srv(3), vec![0]].concat();
        let bad = [vec![], vec![0; 5], vec![0, 1, 0, 10, 0x1b, 0xbc, 9, b'n'], longer];
        for data in bad {
            let [first, second] = good.clone();
            let records = read(&asked, &answer_of(&asked, &[first, (Rtype::SRV, data.clone()), second]));
            assert_eq!((records.targets, records.unreadable), (expected.clone(), 1), "{data:?}");
            let alone = answer_of(&asked, &[(Rtype::SRV, data)]);
            assert_eq!(
                asked.read(7, &alone),
                Some(Reply::Malformed),
                "it does not say that there is nothing"
            );
        }
        let asked = question("chat.internal", Rtype::A);
        let addresses =
            [vec![192, 0, 2, 1], vec![192, 0, 2], vec![192, 0, 2, 3]].map(|data| (Rtype::A, data));
        let records = read(&asked, &answer_of(&asked, &addresses));
        assert_eq!(records.addresses, [IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 3])]);
        assert_eq!(records.unreadable, 1);
    }

    #[test]
    fn what_is_wrong_behind_the_answer_takes_nothing_from_it() {
        let asked = question("chat.internal", Rtype::A);
        let mut bytes = answer_of(&asked, &[(Rtype::A, vec![192, 0, 2, 1])]);
        // Two more records are announced and not there.
        (bytes[9], bytes[11]) = (1, 1);
        assert_eq!(read(&asked, &bytes).addresses, [IpAddr::from([192, 0, 2, 1])]);
    }

    proptest! {
        #[test]
        fn no_answer_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), flips in proptest::collection::vec((0..200usize, any::<u8>()), 0..6)) {
            let question = question("chat.internal", Rtype::SRV);
            let _ = question.read(7, &bytes);
            let mut answer = answer_to(&question, 7, Rcode::NOERROR);
            let srv = Srv::new(1, 10, 7100, host("n1.internal"));
            answer.push((host("chat.internal"), Ttl::from_secs(5), srv)).unwrap();
            bytes = answer.finish();
            for (at, value) in flips {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
            let _ = question.read(7, &bytes);
        }
    }
}
