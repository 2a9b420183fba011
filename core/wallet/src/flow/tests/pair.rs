//! Both flows, and what passes between them.

use super::*;

/// Both flows; a message is delivered as soon as it is there.
pub(super) struct Pair {
    pub(super) sleeve: SleeveFlow,
    pub(super) manager: ManagerFlow,
    pub(super) now: UnixTime,
    /// Every message, and who sent it.
    pub(super) sent: Vec<(&'static str, Vec<u8>)>,
    /// What went to the card.
    pub(super) transmitted: Vec<Vec<u8>>,
    /// What came from it to the sleeve.
    pub(super) answers: Vec<Vec<u8>>,
}

impl Pair {
    /// Before the login. The sleeve does not know what its channel is: one that does sends no
    /// password over a readable one.
    pub(super) fn new(terms: Terms) -> Self {
        Self {
            sleeve: SleeveFlow::new(false),
            manager: ManagerFlow::new(terms, NOW),
            now: NOW,
            sent: Vec::new(),
            transmitted: Vec::new(),
            answers: Vec::new(),
        }
    }

    /// Logged in.
    pub(super) fn open() -> Self {
        let mut pair = Self::new(USUAL);
        pair.sleeve.login(NOW, &secret("open sesame")).unwrap();
        pair.run();
        pair.manager.verified(NOW, Verdict::login(), None).unwrap();
        pair.run();
        pair
    }

    /// With a card.
    pub(super) fn holding(rules: Rules) -> Self {
        let mut pair = Self::open();
        pair.take(rules);
        pair
    }

    pub(super) fn take(&mut self, rules: Rules) {
        self.sleeve.take(NOW, &card()).unwrap();
        self.run();
        self.manager.taken(NOW, Ok(given(rules))).unwrap();
        assert_eq!(self.run(), ["sleeve taken 7 for 60 s"]);
    }

    pub(super) fn exchange(&mut self, command: &[u8], response: &[u8]) {
        self.sleeve.transmit(NOW, command).unwrap();
        self.run();
        assert_eq!(self.transmitted.last().map(Vec::as_slice), Some(command));
        self.manager.answered(LEASE, Ok(response)).unwrap();
        self.run();
        assert_eq!(self.answers.last().map(Vec::as_slice), Some(response));
    }

    /// Delivers until nothing more is said; the events, in order.
    pub(super) fn run(&mut self) -> Vec<String> {
        let mut events = Vec::new();
        loop {
            if let Some(output) = self.sleeve.poll() {
                match output {
                    Output::Send(bytes) => {
                        self.sent.push(("sleeve", bytes.to_vec()));
                        self.manager.handle(self.now, &bytes).unwrap();
                    }
                    Output::Event(event) => events.push(self.sleeve_told(event)),
                }
            } else if let Some(output) = self.manager.poll() {
                match output {
                    Output::Send(bytes) => {
                        self.sent.push(("manager", bytes.to_vec()));
                        self.sleeve.handle(self.now, &bytes).unwrap();
                    }
                    Output::Event(event) => events.push(self.manager_told(event)),
                }
            } else {
                return events;
            }
        }
    }

    fn sleeve_told(&mut self, event: SleeveEvent) -> String {
        let word = match event {
            SleeveEvent::LoggedIn => "logged-in".to_owned(),
            SleeveEvent::LoginRefused { outcome, seconds } => {
                let outcome = match outcome {
                    LoginOutcome::Ok => "ok",
                    LoginOutcome::Refused => "refused",
                    LoginOutcome::Locked => "locked",
                    LoginOutcome::Declined => "declined",
                };
                format!("login-refused {outcome} {seconds}")
            }
            SleeveEvent::Cards(lines) => {
                let cards: Vec<_> = lines.iter().map(|line| line.card.as_str()).collect();
                format!("cards {}", cards.join(" "))
            }
            SleeveEvent::Taken(Taken { lease, seconds, .. }) => {
                format!("taken {lease} for {seconds} s")
            }
            SleeveEvent::Answer(response) => {
                self.answers.push(response.to_vec());
                format!("answer {}", hex(&response))
            }
            SleeveEvent::WasReset(_) => "was-reset".to_owned(),
            SleeveEvent::Refused { check } => format!("refused {check}"),
            SleeveEvent::Released => "released".to_owned(),
            SleeveEvent::Probed(after) => format!("probed {} ms", after.as_millis()),
            SleeveEvent::CardLost { check } => format!("card-lost {check}"),
            SleeveEvent::DistanceCheckFails(fails) => {
                format!("distance {} {}", fails.measured, fails.maximum)
            }
            SleeveEvent::Ended { check } => format!("ended {check}"),
        };
        format!("sleeve {word}")
    }

    fn manager_told(&mut self, event: ManagerEvent) -> String {
        let word = match event {
            ManagerEvent::Verify(_) => "verify".to_owned(),
            ManagerEvent::Consent => "consent".to_owned(),
            ManagerEvent::LoggedIn(_) => "logged-in".to_owned(),
            ManagerEvent::List => "list".to_owned(),
            ManagerEvent::Take { card } => format!("take {card}"),
            ManagerEvent::Transmit { lease, command, .. } => {
                self.transmitted.push(command.to_vec());
                format!("transmit {lease} {}", hex(&command))
            }
            ManagerEvent::Reset { lease } => format!("reset {lease}"),
            ManagerEvent::Exchanged { lease, exchange, .. } => {
                let status = exchange.status.map(|status| hex(&status.to_be_bytes()));
                let (none, check) = ("-".to_owned(), exchange.check.unwrap_or("-"));
                format!("exchanged {lease} {} {check}", status.unwrap_or(none))
            }
            ManagerEvent::Released { lease } => format!("released {lease}"),
            ManagerEvent::Sleep(times) => format!("sleep {} {}", times.every, times.within),
            ManagerEvent::Awake => "awake".to_owned(),
            ManagerEvent::DistanceCheckFails(fails) => {
                format!("distance {} {}", fails.measured, fails.maximum)
            }
            ManagerEvent::Ended { check } => format!("ended {check}"),
        };
        format!("manager {word}")
    }
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXUPPER.encode(bytes)
}
