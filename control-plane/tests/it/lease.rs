//! Leader election over the fake's Lease. Each wait is for a state, with a deadline.

use std::{sync::Arc, time::Duration};

use control_plane::lease::{self, Elector, Leadership};
use kit_process::{
    clock::SystemClock,
    drain::{self, DrainTrigger},
    tasks::Tasks,
};
use serde_json::json;
use tokio::time::Instant;

use crate::fake::Fake;

const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/nebula-system/leases/nebula-control-plane";
const DEADLINE: Duration = Duration::from_secs(30);

struct Replica {
    leadership: Leadership,
    trigger: DrainTrigger,
    tasks: Tasks,
}

fn replica(fake: &Fake, name: &str) -> Replica {
    let (trigger, drain) = drain::channel();
    let tasks = Tasks::new(drain.clone());
    let elector = Elector::new(fake.client.clone(), "nebula-system", name, Arc::new(SystemClock));
    let leadership = elector.leadership();
    tasks.spawn("lease", elector.run(drain));
    Replica { leadership, trigger, tasks }
}

async fn leads(leadership: &mut Leadership) {
    tokio::time::timeout(DEADLINE, leadership.wait_for(|leads| *leads)).await.unwrap().unwrap();
}

async fn follows(leadership: &mut Leadership) {
    tokio::time::timeout(lease::DURATION, leadership.wait_for(|leads| !*leads)).await.unwrap().unwrap();
}

/// Leads for longer than any deadline.
async fn stays_leader(leadership: &mut Leadership) {
    assert!(*leadership.borrow());
    let turns = leadership.wait_for(|leads| !*leads);
    assert!(tokio::time::timeout(lease::DURATION * 3, turns).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn one_of_two_leads_and_the_other_follows_as_soon_as_the_lease_is_given_back() {
    let fake = Fake::start();
    let mut first = replica(&fake, "first");
    leads(&mut first.leadership).await;
    let mut second = replica(&fake, "second");
    first.trigger.start();
    assert!(first.tasks.finished(DEADLINE).await);
    assert!(!*first.leadership.borrow());
    leads(&mut second.leadership).await;
    let lease = fake.get(LEASE).unwrap();
    assert_eq!(lease["spec"]["holderIdentity"], "second");
    assert_eq!(lease["spec"]["leaseTransitions"], 1);
}

#[tokio::test]
async fn a_lease_that_another_replica_takes_meanwhile_is_not_written_over() {
    let fake = Fake::start();
    fake.put(LEASE, json!({"metadata": {"name": "nebula-control-plane"}, "spec": {"holderIdentity": ""}}));
    fake.meddle(|lease| lease["spec"] = json!({"holderIdentity": "other", "leaseDurationSeconds": 15}));
    let me = replica(&fake, "me");
    let conflict = async {
        while fake.count("PUT", 409) == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, conflict).await.unwrap();
    assert_eq!(fake.get(LEASE).unwrap()["spec"]["holderIdentity"], "other");
    assert!(!*me.leadership.borrow());
}

#[tokio::test(start_paused = true)]
async fn a_leader_without_an_api_server_steps_down() {
    let fake = Fake::start();
    let mut me = replica(&fake, "me");
    leads(&mut me.leadership).await;
    fake.break_down(true);
    follows(&mut me.leadership).await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_answers_come_late_steps_down_in_time_after_the_renewal_that_others_saw() {
    let fake = Fake::start();
    fake.answer_after(Duration::from_secs(2));
    let mut me = replica(&fake, "me");
    let begun = Instant::now();
    leads(&mut me.leadership).await;
    assert!(begun.elapsed() >= Duration::from_secs(4), "{:?}", begun.elapsed());
    fake.fall_silent(true);
    follows(&mut me.leadership).await;
    assert_eq!(begun.elapsed(), lease::DEADLINE);
}

#[tokio::test(start_paused = true)]
async fn when_a_leader_loses_the_api_server_another_leads_and_never_both() {
    let fake = Fake::start();
    let mut first = replica(&fake, "first");
    leads(&mut first.leadership).await;
    let mut second = replica(&fake.other_line(), "second");
    stays_leader(&mut first.leadership).await;
    assert!(!*second.leadership.borrow());
    let lost = Instant::now();
    fake.fall_silent(true);
    leads(&mut second.leadership).await;
    assert!(!*first.leadership.borrow());
    assert!(lost.elapsed() <= lease::DURATION + lease::RENEW, "{:?}", lost.elapsed());
    fake.fall_silent(false);
    stays_leader(&mut second.leadership).await;
    assert!(!*first.leadership.borrow());
    assert_eq!(fake.get(LEASE).unwrap()["spec"]["holderIdentity"], "second");
}
