//! What a server should hold, by its health and by what people say of it: the policy, and a good one.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    allocator::Standing,
    autopilot::{
        Config as Thresholds, ConfigError, IntentKind, Reason, ServerState, State, Verdict,
    },
    duration::rounded,
};

/// A server as a policy sees it.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Autopilot's thresholds.
    pub thresholds: &'a Thresholds,
    /// The cluster, which knows what people announced; its `at` is the moment.
    pub state: &'a State,
    /// The server.
    pub server: &'a ServerState,
    /// How many items it may hold, by its own word. Whoever is no member is not asked about.
    pub limit: u32,
    /// What the word that is asked for, its health's or people's, leaves it now.
    pub standing: Standing,
    /// For how long it has, as far as this leader has seen.
    pub stood: Duration,
}

impl Seen<'_> {
    /// For how long its verdict has stood.
    fn verdict_for(&self) -> Duration {
        self.state.at.saturating_sub(self.server.health.since)
    }

    fn reasons(&self) -> String {
        let reasons = self.server.health.reasons.iter().map(Reason::as_str);
        reasons.collect::<Vec<_>>().join(", ")
    }

    /// How many items are taken from it.
    fn given(&self) -> u32 {
        match self.standing {
            Standing::Full
            | Standing::NoNewPrimaries
            | Standing::NoPrimaries
            | Standing::NothingNew => 0,
            Standing::Shed(given) | Standing::ShedOnly(given) => given.min(self.limit),
            Standing::Gone => self.limit,
        }
    }

    /// That all stays as it is, for now.
    fn stays(&self, why: String, again: Option<Duration>) -> Wish {
        Wish { standing: self.standing, why, again }
    }
}

/// What a policy would like a server to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Its standing.
    pub standing: Standing,
    /// Why, for people.
    pub why: String,
    /// After how long it may wish something else, though nothing happens meanwhile. `None`: never.
    pub again: Option<Duration>,
}

/// Decides what servers may hold: once by their health, once by what people say, and the two are
/// added. Pure, synchronous, and free to be wrong: what all servers together lose by their health is
/// bounded, where nobody has said anything nothing is taken on a person's word, and never more is
/// taken than the items need. While one panics, what its servers may hold stays as it is.
pub trait Policy: fmt::Debug + Send + Sync + 'static {
    /// What a server should hold by its health.
    fn wish(&self, seen: &Seen<'_>) -> Wish;

    /// What it should hold by what people say of it. Asked while anybody has drained or cordoned it,
    /// or announced anything, and after that until all is given back; by then it may only give back.
    /// Default: as [`Graded`] with its default steps.
    fn heed(&self, seen: &Seen<'_>) -> Wish {
        Graded::default().heed(seen)
    }
}

/// The times and steps of [`Graded`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// A server that is unhealthy for so long hands its primaries over; its replicas stay. Default
    /// 2 s (ours: some missed heartbeats are no reason, and five seconds without a primary are felt).
    #[serde(with = "crate::duration")]
    pub suspect_after: Duration,
    /// One that is unhealthy for so long gives up what it holds, step by step. At least
    /// `suspect_after`. Default 15 s (ours: longer than a restart).
    #[serde(with = "crate::duration")]
    pub shed_after: Duration,
    /// How much of its limit it gives up at a step, in percent, 1 to 100. Default 25.
    pub shed_step_percent: u8,
    /// How long a step lasts. At least 1 ms. Default 10 s.
    #[serde(with = "crate::duration")]
    pub shed_interval: Duration,
    /// One that is unhealthy for so long, by two independent signs, counts as dead: its replicas are
    /// made anew elsewhere. At least `shed_after`. Default 1 min.
    #[serde(with = "crate::duration")]
    pub dead_after: Duration,
    /// One that gave up replicas gets them back when it has been healthy for so long, and is stable by
    /// autopilot's own measure, which grows with every failure. Default 30 s.
    #[serde(with = "crate::duration")]
    pub return_after: Duration,
    /// How much of its limit it gets back at a step, in percent, 1 to 100. Default 25.
    pub return_step_percent: u8,
    /// How long such a step lasts. At least 1 ms. Default 10 s.
    #[serde(with = "crate::duration")]
    pub return_interval: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            suspect_after: Duration::from_secs(2),
            shed_after: Duration::from_secs(15),
            shed_step_percent: 25,
            shed_interval: Duration::from_secs(10),
            dead_after: Duration::from_secs(60),
            return_after: Duration::from_secs(30),
            return_step_percent: 25,
            return_interval: Duration::from_secs(10),
        }
    }
}

impl Config {
    /// Says what is wrong with it.
    ///
    /// # Errors
    /// The first field that breaks its rule.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let time = |field, found: Duration, least: Duration, than: &str| {
            let expected = format!("must be at least {} ({than})", rounded(least));
            let found = rounded(found).to_string();
            Err(ConfigError { field, found, expected })
        };
        let step = Duration::from_millis(1);
        if self.shed_after < self.suspect_after {
            return time("shed_after", self.shed_after, self.suspect_after, "suspect_after");
        }
        if self.dead_after < self.shed_after {
            return time("dead_after", self.dead_after, self.shed_after, "shed_after");
        }
        if self.shed_interval < step {
            return time("shed_interval", self.shed_interval, step, "or no step would end");
        }
        if self.return_interval < step {
            return time("return_interval", self.return_interval, step, "or no step would end");
        }
        let percents = [
            ("shed_step_percent", self.shed_step_percent),
            ("return_step_percent", self.return_step_percent),
        ];
        for (field, found) in percents {
            if !(1..=100).contains(&found) {
                let expected = "must be from 1 to 100".to_owned();
                return Err(ConfigError { field, found: found.to_string(), expected });
            }
        }
        Ok(())
    }
}

/// The ready-made policy: suspect servers hand primaries over, unhealthy ones give up what they hold
/// step by step, dead ones all at once; who recovers gets it back step by step.
///
/// What an operator says is done in the same way, on purpose and without delay: a server that is drained
/// gives up everything, one that is announced to restart hands its primaries over, a cordoned one gets
/// nothing new.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Graded {
    config: Config,
}

impl Graded {
    /// The policy with these times and steps.
    ///
    /// # Errors
    /// What [`Config::validate`] says.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self { config })
    }

    fn unhealthy(&self, seen: &Seen<'_>) -> Wish {
        let Config { suspect_after, shed_after, shed_interval, dead_after, .. } = self.config;
        let bad = seen.verdict_for();
        let why = format!("unhealthy for {}: {}", seconds(bad), seen.reasons());
        if seen.state.intended(&seen.server.server.id).is_some() {
            // Somebody knows why, and says what to take.
            return seen.stays(why, None);
        }
        let dead = seen.server.signs.iter().count() >= 2 && bad >= dead_after;
        let (standing, again) = if dead {
            (Standing::Gone, None)
        } else if bad >= shed_after {
            let into = bad.saturating_sub(shed_after);
            let steps = into.as_nanos() / shed_interval.as_nanos().max(1) + 1;
            let percent = steps.saturating_mul(u128::from(self.config.shed_step_percent)).min(100);
            let percent = u32::try_from(percent).unwrap_or(100);
            let all = u32::try_from(steps).unwrap_or(u32::MAX);
            let next = shed_after.saturating_add(shed_interval.saturating_mul(all));
            let next = if percent < 100 { next.min(dead_after) } else { dead_after };
            (Standing::Shed(part(seen.limit, percent)), Some(next))
        } else if bad >= suspect_after {
            (Standing::NoPrimaries, Some(shed_after))
        } else {
            (Standing::Full, Some(suspect_after))
        };
        let again = again.filter(|again| *again > bad).map(|again| again.saturating_sub(bad));
        // Who is unhealthy gets nothing back.
        Wish { standing: standing.and(seen.standing), why, again }
    }

    fn healthy(&self, seen: &Seen<'_>) -> Wish {
        if seen.standing == Standing::Full {
            return full("healthy");
        }
        let good = seen.server.healthy_for(seen.state.at).unwrap_or_default();
        let stable = seen.server.stabilization(seen.thresholds);
        let needed = if seen.given() == 0 { stable } else { self.config.return_after.max(stable) };
        if good < needed {
            let why = format!("healthy again for {} of {}", seconds(good), seconds(needed));
            return seen.stays(why, Some(needed.saturating_sub(good)));
        }
        self.give_back(seen, "healthy again")
    }

    /// One step less is taken, if the last one was long enough ago.
    fn give_back(&self, seen: &Seen<'_>, since: &str) -> Wish {
        let Config { return_interval, return_step_percent, .. } = self.config;
        let why = format!("{since}, and gets its share back step by step");
        let given = seen.given();
        if given > 0 && seen.stood < return_interval && seen.standing != Standing::Gone {
            return seen.stays(why, Some(return_interval.saturating_sub(seen.stood)));
        }
        let step = part(seen.limit, u32::from(return_step_percent)).max(1);
        match given.saturating_sub(step) {
            0 => full(since),
            left => Wish { standing: Standing::Shed(left), why, again: Some(return_interval) },
        }
    }
}

impl Policy for Graded {
    fn wish(&self, seen: &Seen<'_>) -> Wish {
        match seen.server.health.verdict {
            Verdict::Unhealthy => self.unhealthy(seen),
            Verdict::Healthy => self.healthy(seen),
            Verdict::Unknown => {
                seen.stays(format!("nobody can tell how it is: {}", seen.reasons()), None)
            }
        }
    }

    fn heed(&self, seen: &Seen<'_>) -> Wish {
        let id = &seen.server.server.id;
        let announced = seen.state.intended(id).map(|kind| match kind {
            IntentKind::Drain => (Standing::Shed(seen.limit), "drained by an operator".to_owned()),
            IntentKind::Reboot | IntentKind::Upgrade => {
                let why = "an operator has announced that it restarts".to_owned();
                (Standing::NoPrimaries, why)
            }
        });
        let cordoned = seen.state.cordoned(id);
        let cordoned =
            cordoned.map(|why| (Standing::NothingNew, format!("cordoned by an operator: {why}")));
        let both = |(one, why): (_, String), (other, also)| {
            (Standing::and(one, other), format!("{why}; {also}"))
        };
        if let Some((standing, why)) = announced.into_iter().chain(cordoned).reduce(both) {
            // What an earlier drain took is not given back under the next word.
            let taken = Standing::Shed(seen.given());
            return Wish { standing: standing.and(taken), why, again: None };
        }
        if seen.server.health.verdict != Verdict::Healthy {
            let why = "an operator has let it go, and it gets nothing back until it is healthy";
            return seen.stays(why.to_owned(), None);
        }
        // It never was sick for an operator's sake: no proof is asked for.
        self.give_back(seen, "let go by an operator")
    }
}

fn full(why: &str) -> Wish {
    Wish { standing: Standing::Full, why: why.to_owned(), again: None }
}

/// So many percent of a limit, rounded up.
fn part(limit: u32, percent: u32) -> u32 {
    let part = (u64::from(limit) * u64::from(percent)).div_ceil(100);
    u32::try_from(part).unwrap_or(limit).min(limit)
}

/// For people: whole seconds.
fn seconds(time: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_secs(time.as_secs()))
}
