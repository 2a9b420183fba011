//! Carries out plans, one action after the other, and looks at everything after each.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use countersign_payment::{evidence, receipt};
use countersign_service::{Actor, ServiceError};
use testkit::parts::Postgres;

use crate::calls::{Call, Heard};
use crate::hear::Foreseen;
use crate::house::{FOREVER, Place};
use crate::judge::Violation;
use crate::plan::{Action, Plan};
use crate::saboteurs::Sabotage;
use crate::world::{SERVERS, World};

/// How long each action takes by the world's clock.
const TICK: Duration = Duration::from_millis(7);
/// How often something that has to be done is tried while the database fails.
const TRIES: usize = 6;
/// Dead servers of which something may still come, at most.
const GHOSTS_MAX: usize = 2;
/// How often the database dies, and what happens before and meanwhile.
const DEATHS: usize = 4;
const STEPS_BETWEEN_DEATHS: usize = 15;
const CALLS_AT_DEATH: usize = 24;
/// Payments of each state whose papers are verified.
const PAPERS_MAX: usize = 3;
/// Calls that must not change anything, at the end, before it is looked whether they did.
const UNSEEN_MAX: usize = 8;
/// After this everything that was ever asked for is overdue.
const LONG: Duration = Duration::from_secs(3600);

/// A world that went wrong.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) seed: u64,
    /// How many actions it takes.
    pub(crate) steps: usize,
    pub(crate) action: String,
    pub(crate) violations: Vec<Violation>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { seed, steps, action, violations } = self;
        writeln!(f, "seed {seed} goes wrong at step {steps}, {action}:")?;
        for Violation { name, detail } in violations {
            writeln!(f, "  {name}: {detail}")?;
        }
        write!(f, "keep it: Reproduction {{ seed: {seed}, steps: {steps}, what: \"…\" }}")
    }
}

/// What happens while calls are under way.
enum Meanwhile<'a> {
    Nothing,
    /// Their server dies so long after they were sent.
    ServerDies(Duration),
    /// The database is killed so long after, and started again.
    DatabaseDies(Duration, &'a mut Postgres),
}

/// Lives through deaths of the database: calls are under way when it is killed.
pub(crate) async fn outlive(
    place: Place,
    mut postgres: Postgres,
    seed: u64,
) -> Result<World, Failure> {
    let failed = |steps, action: &str, violations| Failure {
        seed,
        steps,
        action: action.to_owned(),
        violations,
    };
    let mut world = World::new(place, seed, Sabotage::None).await.map_err(|error| {
        failed(0, "furnishing", vec![Violation { name: "error", detail: error.to_string() }])
    })?;
    let mut plan = Plan::new(seed);
    let mut found = Vec::new();
    for death in 1..=DEATHS {
        for _ in 0..STEPS_BETWEEN_DEATHS {
            found.extend(world.step(&plan.draw()).await);
        }
        let Action::Join(mut actions) = plan.join() else { unreachable!("it is one") };
        while actions.len() < CALLS_AT_DEATH {
            actions.push(plan.draw());
        }
        let after = Duration::from_millis(death as u64 * 3);
        found.extend(world.at_once(&actions, Meanwhile::DatabaseDies(after, &mut postgres)).await);
        found.extend(world.look().await);
        if !found.is_empty() {
            return Err(failed(death * STEPS_BETWEEN_DEATHS, "the database died", found));
        }
    }
    let found = world.settle().await;
    if found.is_empty() { Ok(world) } else { Err(failed(0, "settling", found)) }
}

/// Lives `steps` actions of the world of `seed`, and then has everything settled.
pub(crate) async fn live(place: Place, seed: u64, steps: usize) -> Result<World, Failure> {
    live_with(place, (seed, steps), Sabotage::None).await
}

/// The same, with something wrong on purpose.
pub(crate) async fn live_with(
    place: Place,
    (seed, steps): (u64, usize),
    sabotage: Sabotage,
) -> Result<World, Failure> {
    let failed = |steps, action: &str, violations| {
        Err(Failure { seed, steps, action: action.to_owned(), violations })
    };
    let unfurnished = |error: ServiceError| {
        vec![Violation { name: "unforeseen-error", detail: error.to_string() }]
    };
    let mut world = match World::new(place, seed, sabotage).await {
        Ok(world) => world,
        Err(error) => return failed(0, "furnishing", unfurnished(error)),
    };
    let found = world.look().await;
    if !found.is_empty() {
        return failed(0, "furnishing", found);
    }
    let mut plan = Plan::new(seed);
    for step in 1..=steps {
        let action = plan.draw();
        let found = world.step(&action).await;
        if !found.is_empty() {
            return failed(step, &format!("{action:?}"), found);
        }
    }
    let found = world.settle().await;
    if found.is_empty() { Ok(world) } else { failed(steps, "settling", found) }
}

impl World {
    /// One action, and a look at what there is after it.
    pub(crate) async fn step(&mut self, action: &Action) -> Vec<Violation> {
        self.house.pass(TICK);
        self.tally.add("steps");
        if self.ghosts.len() >= GHOSTS_MAX {
            self.bury().await;
            self.now = self.see().await;
        }
        let mut found = self.perform(action).await;
        found.extend(self.look().await);
        found
    }

    async fn perform(&mut self, action: &Action) -> Vec<Violation> {
        match action {
            Action::Wait { seconds } => self.house.pass(Duration::from_secs((*seconds).into())),
            Action::Fault { trouble, skip } => {
                self.house.troubles.arm(Some((*trouble, *skip)));
            }
            Action::Join(actions) => return self.at_once(actions, Meanwhile::Nothing).await,
            Action::Crash { during, after } => {
                let after = Duration::from_micros((*after).into());
                self.tally.add("crashes");
                let found = self.at_once(during, Meanwhile::ServerDies(after)).await;
                if !after.as_micros().is_multiple_of(4) {
                    self.bury().await;
                }
                return found;
            }
            Action::Freeze { .. }
            | Action::Unfreeze { .. }
            | Action::Block { .. }
            | Action::Unblock { .. }
            | Action::Revoke { .. }
            | Action::Unbind { .. }
            | Action::RevokePhone { .. } => {
                if let Err(error) = self.administer(action).await {
                    let detail = format!("{action:?}: {} ({error})", error.check());
                    return vec![Violation { name: "unforeseen-error", detail }];
                }
            }
            _ => {
                let Some(call) = self.resolve(action) else { return Vec::new() };
                return self.call(&call).await;
            }
        }
        Vec::new()
    }

    /// One call, alone.
    async fn call(&mut self, call: &Call) -> Vec<Violation> {
        let foreseen = if self.ghosts.is_empty() { self.foresee(call) } else { Foreseen::Racing };
        let (server, fired) = (self.next_server(), self.house.troubles.fired());
        let heard = self.send(call, server).await.unwrap_or(Heard::Nothing);
        self.faulty = self.house.troubles.fired() > fired;
        // Trouble may leave a caller without an answer, but never with a wrong one.
        self.hear(call, heard, &foreseen)
    }

    /// Several calls at once.
    async fn at_once(&mut self, actions: &[Action], meanwhile: Meanwhile<'_>) -> Vec<Violation> {
        let mut calls: Vec<Call> = Vec::new();
        for action in actions {
            calls.extend(self.resolve(action));
        }
        let fired = self.house.troubles.fired();
        let (dying, ghosts) = (self.next_server(), self.ghosts.len());
        let mut sent = Vec::new();
        for (at, call) in calls.iter().enumerate() {
            let dies = matches!(meanwhile, Meanwhile::ServerDies(_));
            sent.push(self.send(call, if dies { dying } else { at % SERVERS }));
        }
        let mut shaken = false;
        match meanwhile {
            Meanwhile::Nothing => {}
            Meanwhile::ServerDies(after) => {
                tokio::time::sleep(after).await;
                self.replace(dying).await;
            }
            Meanwhile::DatabaseDies(after, postgres) => {
                tokio::time::sleep(after).await;
                postgres.kill().unwrap();
                postgres.restart().unwrap();
                shaken = true;
            }
        }
        let dies = self.ghosts.len() > ghosts;
        let mut found = Vec::new();
        let mut heard = Vec::new();
        for task in sent {
            let said = task.await.unwrap_or(Heard::Nothing);
            // What a dying process still says to itself reaches nobody.
            heard.push(if dies { said.unless_internal() } else { said });
        }
        self.faulty = shaken || self.house.troubles.fired() > fired;
        for (call, heard) in calls.iter().zip(heard) {
            found.extend(self.hear(call, heard, &Foreseen::Racing));
        }
        self.tally.add("joint actions");
        found
    }

    /// Operators' work. Whatever it takes, it is done in the end.
    async fn administer(&mut self, action: &Action) -> Result<(), ServiceError> {
        let service = self.servers[0].service.clone();
        let console = Actor::Console;
        match action {
            Action::Freeze { pick } => {
                let id = self.account(*pick);
                if self.now.accounts.get(&id).is_some_and(|account| account.status == "open") {
                    retried(|| service.freeze_account(&console, &id, "a court order")).await?;
                    self.tally.add("accounts frozen");
                }
            }
            Action::Unfreeze { pick } => {
                // What is frozen is looked for from there on.
                let mut from_there = (0..=u8::MAX).map(|at| self.account(pick.wrapping_add(at)));
                let frozen = from_there
                    .find(|id| self.now.accounts.get(id).is_some_and(|one| one.status == "frozen"));
                if let Some(id) = frozen {
                    retried(|| service.unfreeze_account(&console, &id)).await?;
                }
            }
            Action::Block { pick } => self.block(*pick).await?,
            Action::Unblock { pick } => self.unblock(*pick).await?,
            Action::Revoke { pick } => {
                let at = usize::from(*pick) % self.devices.len();
                let (id, payer) = (self.devices[at].id.clone(), self.devices[at].payer);
                if !self.devices[at].gone {
                    retried(|| service.revoke_signer(&console, &id, "lost")).await?;
                    self.bar_device(at);
                    let kind = self.devices[at].kind();
                    self.house.troubles.arm(None);
                    self.give_device(payer, kind).await?;
                    self.tally.add("devices revoked");
                }
            }
            Action::Unbind { pick } => {
                let at = usize::from(*pick) % self.devices.len();
                let (id, payer) = (self.devices[at].id.clone(), self.devices[at].payer);
                if !self.devices[at].gone {
                    let account = self.payers[payer].account.clone();
                    retried(|| service.unbind_signer(&console, &id, &account)).await?;
                    self.bar_device(at);
                    let kind = self.devices[at].kind();
                    self.house.troubles.arm(None);
                    self.give_device(payer, kind).await?;
                    self.tally.add("devices unbound");
                }
            }
            Action::RevokePhone { pick } => {
                let at = usize::from(*pick) % self.phones.len();
                let (id, payer) = (self.phones[at].id.clone(), self.phones[at].payer);
                if !self.phones[at].revoked {
                    retried(|| service.revoke_phone(&console, &id, "lost")).await?;
                    self.phones[at].revoked = true;
                    let from = self.house.now();
                    self.judge.phones.entry(id).or_default().barred.push((from, FOREVER));
                    self.house.troubles.arm(None);
                    self.give_phone(payer).await?;
                    self.tally.add("phones revoked");
                }
            }
            _ => unreachable!("only operators' work comes here"),
        }
        Ok(())
    }

    fn bar_device(&mut self, at: usize) {
        self.devices[at].gone = true;
        let from = self.house.now();
        let id = self.devices[at].id.clone();
        let barred = &mut self.judge.devices.entry(id).or_default().barred;
        barred.push((from, FOREVER));
    }

    async fn block(&mut self, pick: u8) -> Result<(), ServiceError> {
        let at = usize::from(pick) % self.devices.len();
        let id = self.devices[at].id.clone();
        let live = self.now.devices.get(&id).is_some_and(|row| row.status == "enrolled");
        if live && !self.devices[at].gone {
            let service = self.servers[0].service.clone();
            retried(|| service.block_signer(&Actor::Console, &id, "reported stolen")).await?;
            let from = self.house.now();
            self.judge.devices.entry(id).or_default().barred.push((from, FOREVER));
            self.tally.add("devices blocked");
        }
        Ok(())
    }

    async fn unblock(&mut self, pick: u8) -> Result<(), ServiceError> {
        let count = self.devices.len();
        let blocked = (0..count).map(|at| (usize::from(pick) + at) % count).find(|at| {
            let device = &self.devices[*at];
            let row = self.now.devices.get(&device.id);
            !device.gone && row.is_some_and(|row| row.status == "blocked")
        });
        if let Some(at) = blocked {
            let id = self.devices[at].id.clone();
            let service = self.servers[0].service.clone();
            retried(|| service.unblock_signer(&Actor::Console, &id)).await?;
            let until = self.house.now();
            for barred in &mut self.judge.devices.entry(id).or_default().barred {
                barred.1 = barred.1.min(until);
            }
            self.tally.add("devices unblocked");
        }
        Ok(())
    }

    /// Trouble ends; whoever got no answer asks again, and everything comes to its end.
    async fn settle(&mut self) -> Vec<Violation> {
        self.house.troubles.arm(None);
        let mut found = Vec::new();
        for at in 0..SERVERS {
            self.replace(at).await;
        }
        self.bury().await;
        found.extend(self.look().await);
        let mut unseen = 0;
        let asked = (0..self.asked.len()).map(Call::Ask);
        let calls: Vec<_> = asked.chain((0..self.mail.len()).map(Call::Deliver)).collect();
        for call in calls {
            let foreseen = self.foresee(&call);
            found.extend(self.call(&call).await);
            // What must not change anything is looked at a few at a time.
            unseen += 1;
            let idle = matches!(foreseen, Foreseen::Again | Foreseen::Named | Foreseen::Stranger);
            if !idle || unseen == UNSEEN_MAX {
                found.extend(self.look().await);
                unseen = 0;
            }
        }
        self.house.pass(LONG);
        found.extend(self.call(&Call::Sweep).await);
        found.extend(self.look().await);
        for (id, payment) in &self.now.payments {
            if payment.state == "pending" || payment.state == "created" {
                let detail = format!("{id} is {} when all is over", payment.state);
                found.push(Violation { name: "never-ended", detail });
            }
        }
        found.extend(self.check_papers().await);
        let expired = self.now.payments.values().filter(|one| one.state == "expired").count();
        let failed = self.now.payments.values().filter(|one| one.state == "failed").count();
        let joint = |id: &String| {
            let mut tries = self.now.answers.iter().filter(|one| one.payment == *id);
            tries.any(|one| one.method == "joint" && one.outcome == "refused")
        };
        let all = self.now.payments.iter();
        let guessed = all.filter(|(id, one)| one.state == "failed" && joint(id)).count();
        *self.tally.0.entry("failed by a terminal's answers").or_default() += guessed as u64;
        *self.tally.0.entry("expired").or_default() += expired as u64;
        *self.tally.0.entry("failed").or_default() += failed as u64;
        *self.tally.0.entry("database faults").or_default() += self.house.troubles.fired();
        found
    }
}

impl World {
    /// Of some payments of each kind the receipt and the evidence, verified as a court would: with
    /// nothing but the root.
    async fn check_papers(&mut self) -> Vec<Violation> {
        let mut found = Vec::new();
        let mut counts = BTreeMap::new();
        for (id, payment) in &self.now.payments {
            let count: &mut usize = counts.entry(payment.state.clone()).or_default();
            *count += 1;
            if *count > PAPERS_MAX {
                continue;
            }
            let service = &self.servers[0].service;
            let root = &service.authority().root;
            let wrong = match service.payment_evidence(&Actor::Console, id).await {
                Ok(bundle) => {
                    let report = evidence::verify(&bundle, root);
                    let failed: Vec<_> = report.failed().collect();
                    (!report.is_good()).then(|| format!("{failed:?}"))
                }
                Err(error) => Some(error.to_string()),
            };
            let papers = wrong.map(|wrong| format!("evidence of {id}, {}: {wrong}", payment.state));
            found.extend(papers.map(|detail| Violation { name: "evidence", detail }));
            if payment.state == "executed" {
                let receipt = service.payment_receipt(&Actor::Console, id).await;
                let good = receipt.is_ok_and(|receipt| receipt::verify(&receipt, root).is_ok());
                let wrong = (!good).then(|| Violation { name: "receipt", detail: id.clone() });
                found.extend(wrong);
            }
        }
        found
    }
}

/// Tries again what the database failed. What was done unheard of cannot be done again, and that
/// is as good.
async fn retried<T, F: Future<Output = Result<T, ServiceError>>>(
    work: impl Fn() -> F,
) -> Result<(), ServiceError> {
    let mut last = work().await.map(|_| ());
    for _ in 1..TRIES {
        if !matches!(last, Err(ServiceError::Unavailable { .. })) {
            return last;
        }
        last = match work().await {
            Err(ServiceError::Refused { .. } | ServiceError::NotFound { .. }) => Ok(()),
            other => other.map(|_| ()),
        };
    }
    last
}
