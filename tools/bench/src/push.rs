//! `push`: this process is the service that pushes, and all clients that receive. With `--raw` the same pushes go through
//! `bare-push`.

use crate::audience::{Audience, To, group_name};
use crate::bare_control::{self, BareAnswers};
use crate::crew::{Crew, FINISH_TIMEOUT, print};
use crate::deliveries::{Deliveries, Receipts, Rss};
use crate::ledger::Tally;
use crate::options::Push;
use crate::pattern::Pattern;
use crate::plan::{Found, Load, Shared};
use crate::pusher::{Arrivals, Carrier, Manner, Pushed, Pushing, Reports};
use crate::receiver::{JOIN, Reception};
use crate::servers::link_key;
use crate::watch::{self, Usage};
use moorgate_service::{Code, Directive, Handle, Receipt, Reply, Service};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

/// What the service hears of its pushes.
#[derive(Debug, Default)]
struct ReceiptCounts {
    acknowledged: AtomicU64,
    lost: AtomicU64,
}

/// What pushes, on the other side.
enum Source {
    Service(Handle),
    Bare(BareAnswers),
}

/// `moorgate-bench push`.
pub(crate) fn push(options: &Push) -> Result<bool, String> {
    let common = &options.common;
    let reception = Arc::new(Reception { audience: audience(options)?, arrivals: Arrivals::default() });
    let empty = watch::read_all(&common.watch_pid)?;
    let counts = Arc::new(ReceiptCounts::default());
    let service = if common.raw { None } else { Some(serve(options, &counts)?) };
    let crew = Crew::start(common, options.payload, &Load::Receive(reception.clone()))?;
    let crew = match &service {
        Some(service) => crew.linked(service, &options.service_name)?,
        None => crew,
    };
    let crew = crew.ramped()?;
    let before = watch::read_all(&common.watch_pid)?;
    let reports = Arc::new(Reports::new(reception.audience.targets()));
    let (carrier, source) = match service {
        Some(service) => (Carrier::Gateway(service.pusher()), Source::Service(service)),
        None => {
            let connected = bare_control::connect(options.control, reception.clone(), reports.clone());
            let (control, answers) = connected.map_err(|error| format!("{}: {error}", options.control))?;
            (Carrier::Bare(control), Source::Bare(answers))
        }
    };
    let pushing = Pushing {
        clock: crew.clock,
        shared: crew.shared.clone(),
        reception: reception.clone(),
        reports: reports.clone(),
        carrier,
        manner: Manner {
            rate: options.rate.map(|rate| rate as f64),
            in_flight: options.pushes_in_flight,
            receipts: options.receipts,
        },
        pattern: Pattern::new(options.payload),
        pushed: Pushed::default(),
    };
    let pusher = std::thread::Builder::new().name("pusher".to_owned()).spawn(move || pushing.run());
    let pusher = pusher.map_err(|error| error.to_string())?;
    let run = Run { options, reception, reports, receipts: counts, pusher };
    let deliveries = run.finished(crew, &empty, &before);
    source.end();
    let deliveries = deliveries?;
    print(&deliveries.json(), &deliveries.text(), common.json);
    if deliveries.are_none() {
        return Err(
            "there was no delivery within the time that was measured; make --duration longer".to_owned()
        );
    }
    Ok(deliveries.is_good())
}

fn audience(options: &Push) -> Result<Audience, String> {
    let connections = u32::try_from(options.common.connections).map_err(|error| error.to_string())?;
    match options.to {
        To::Everyone => Ok(Audience::everyone(connections)),
        To::Users if options.common.anonymous => Err("--to users needs users, not --anonymous".to_owned()),
        To::Users => Ok(Audience::users(connections, options.users_per_push)),
        To::Group => Audience::groups(connections, options.groups, options.group_size.unwrap_or_default())
            .ok_or_else(|| {
                format!("{connections} connections are too few for these groups, or there are none")
            }),
    }
}

/// The service that pushes, and puts connections into groups.
fn serve(options: &Push, counts: &Arc<ReceiptCounts>) -> Result<Handle, String> {
    let counts = counts.clone();
    let mut service = Service::named(&options.service_name)
        .handle(JOIN..=JOIN, |call, responder| {
            responder.reply(match call.payload().try_into() {
                Ok(target) => Reply::ok(b"").with(Directive::join(&group_name(u32::from_be_bytes(target)))),
                Err(_) => Reply::error(Code::InvalidArgument, "no number of a group"),
            });
        })
        .on_receipt(move |receipt: &Receipt| {
            let count = if receipt.acknowledged { &counts.acknowledged } else { &counts.lost };
            count.fetch_add(1, Ordering::AcqRel);
        });
    if let Some(path) = &options.key_file {
        service = service.key(link_key(path)?);
    }
    let listening = service
        .listen(options.service_listen)
        .map_err(|error| format!("{}: {error}", options.service_listen))?;
    listening.spawn().map_err(|error| error.to_string())
}

impl Source {
    fn end(self) {
        match self {
            Source::Service(handle) => {
                handle.stop();
                handle.join();
            }
            Source::Bare(answers) => answers.end(),
        }
    }
}

/// A run whose connections stand, and whose pusher has begun.
struct Run<'a> {
    options: &'a Push,
    reception: Arc<Reception>,
    reports: Arc<Reports>,
    receipts: Arc<ReceiptCounts>,
    pusher: JoinHandle<Pushed>,
}

impl Run<'_> {
    fn finished(self, crew: Crew, empty: &[Usage], before: &[Usage]) -> Result<Deliveries, String> {
        let common = &self.options.common;
        if !self.is_everybody_reached(&crew) {
            let reached = crew.shared.reached.load(Ordering::Acquire);
            let what =
                format!("{reached} of {} connections have had a push", self.reception.audience.members());
            let why: Vec<String> = std::iter::once(what).chain(self.reports.errors().into_keys()).collect();
            return Err(crew.explain(&why.join(": ")));
        }
        crew.warm_up(self.options.warmup);
        let mut peaks = before.to_vec();
        let pushed = || crew.shared.pushed.load(Ordering::Acquire);
        let pushed_before = pushed();
        let measured = crew.measure(common, &mut || watch::raise(&mut peaks, &common.watch_pid))?;
        let pushes = pushed().saturating_sub(pushed_before);
        crew.end_load();
        let Run { options, reception, reports, receipts, pusher } = self;
        let all = pusher.join().map_err(|_| "the thread that pushes has failed".to_owned())?;
        let what = |_: &Shared| "pushes that are on their way".to_owned();
        crew.wait_for(what, FINISH_TIMEOUT, |_| {
            reports.reported() >= all.pushes && reception.arrivals.count() >= all.deliveries
        });
        let receipts = options.receipts.then(|| receipts.settled(&crew, &reports, &reception.audience));
        crew.pause(options.quiet);
        let after = watch::read_all(&common.watch_pid)?;
        let found = crew.finish()?;
        let tally = tally(&found, &reception.audience, &reports);
        let mut deliveries = Deliveries::new(found, (pushes, &measured), tally);
        deliveries.add_errors(reports.errors());
        deliveries.receipts = receipts;
        deliveries.not_sent = all.not_sent;
        let rss = Rss { empty, before, peak: &peaks, after: &after };
        deliveries.watch(&common.watch_pid, &measured, &rss);
        Ok(deliveries)
    }

    /// Waits for the first round of pushes.
    fn is_everybody_reached(&self, crew: &Crew) -> bool {
        let members = self.reception.audience.members();
        let reached = |shared: &Shared| shared.reached.load(Ordering::Acquire);
        let what = |shared: &Shared| {
            format!("a push to reach all connections: {} of {members} are reached", reached(shared))
        };
        crew.wait_to_begin(what, |shared| reached(shared) >= members || self.pusher.is_finished());
        reached(&crew.shared) >= members
    }
}

impl ReceiptCounts {
    /// The sums, once there is a receipt for each delivery, or the time is over.
    fn settled(&self, crew: &Crew, reports: &Reports, audience: &Audience) -> Receipts {
        let accepted = |target| reports.accepted(target).saturating_mul(u64::from(audience.size(target)));
        let expected: u64 = (0..audience.targets()).map(accepted).sum();
        let counts = || (self.acknowledged.load(Ordering::Acquire), self.lost.load(Ordering::Acquire));
        let came = || counts().0.saturating_add(counts().1);
        let what = |_: &Shared| format!("receipts: {} of {expected} have come", came());
        crew.wait_for(what, FINISH_TIMEOUT, |_| came() >= expected);
        let (acknowledged, lost) = counts();
        Receipts { acknowledged, lost, missing: expected.saturating_sub(came()) }
    }
}

/// The sums over all connections, now that everything has been sent.
fn tally(found: &[Found], audience: &Audience, reports: &Reports) -> Tally {
    let mut sum = Tally::default();
    for (number, ledger) in found.iter().flat_map(|found| &found.ledgers) {
        let sent = audience.target_of(*number).map_or(0, |target| reports.accepted(target));
        sum.add(ledger.closed(sent));
    }
    sum
}
