//! What a service is told of those whom it names.

use super::*;
use crate::directory::{Directory, Life, Place, SessionRef};
use crate::routing::Right;
use moorgate_proto::v1::push_result::Target;
use moorgate_proto::v1::service_push::Target as To;

// spec: L-53
#[test]
fn the_attached_the_detached_and_the_gone_are_told_apart() {
    let directory = Arc::new(Directory::unrung(1, 1));
    let mut world = World::with(1, |parts| {
        parts.services[0].grants = Grants::NONE.with(Right::Push);
        parts.directory = directory.clone();
    });
    let link = world.dialled();
    world.open(link, 0);
    let session = |index| SessionRef { shard: SHARD, key: SessionKey::new(index, 1) };
    let lives = [
        (1, "alice", Life::Attached),
        (2, "bob", Life::Detached),
        (3, "carol", Life::Detached),
        (4, "carol", Life::Attached),
        (5, "carol", Life::Detached),
    ];
    for (index, user, life) in lives {
        directory.note(session(index), life);
        let place = Place { application: "im", device_id: "", platform: "" };
        directory.claim(&user.into(), session(index), place).unwrap();
    }
    let mut targets = |target: To| {
        let push = v1::ServicePush { target: Some(target), ..v1::ServicePush::default() };
        world.say(link, to_gateway::Member::Push(push));
        match &world.heard(link)[..] {
            [to_service::Member::PushResult(result)] => result.targets().collect::<Vec<Target>>(),
            other => panic!("{other:?}"),
        }
    };
    let (queued, waiting, offline) = (Target::Queued, Target::Waiting, Target::Offline);
    let user_ids = ["alice", "bob", "carol", "dave"].map(str::to_owned).to_vec();
    assert_eq!(targets(To::Users(v1::Users { user_ids })), [queued, waiting, queued, offline]);
    let session_ids = [1, 2, 9].map(|index| directory.id_of(session(index)).0.to_vec().into()).to_vec();
    assert_eq!(targets(To::Sessions(v1::Sessions { session_ids })), [queued, waiting, offline]);
}
