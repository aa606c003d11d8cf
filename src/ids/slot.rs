//! What to do next about one key, from what is wanted and what is known to stand.

/// What is known of this node's reference to a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Standing {
    /// None was asked for in this session.
    #[default]
    Absent,
    /// One was asked for, or stood, and it is not known whether it stands.
    Unknown,
    /// It stands, as long as the session lives.
    Held,
}

/// What to do about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing: all is as it is wanted, or an answer is on its way.
    Nothing,
    /// Refer to it, or make sure of it.
    Acquire,
    /// Let the reference go, whether it stands or not.
    Release,
    /// Forget about it.
    Forget,
}

/// The next step for a key.
pub(super) fn next(standing: Standing, flying: bool, wanted: bool) -> Step {
    match (flying, wanted, standing) {
        (true, _, _) | (false, true, Standing::Held) => Step::Nothing,
        (false, true, Standing::Absent | Standing::Unknown) => Step::Acquire,
        (false, false, Standing::Held | Standing::Unknown) => Step::Release,
        (false, false, Standing::Absent) => Step::Forget,
    }
}
