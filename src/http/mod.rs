//! Health, state and configuration over HTTP, in the shape of Consul's operator API.
//!
//! [`router`] answers from the latest [`View`](crate::autopilot::View) and never waits for the
//! cluster; only a PUT does. Merge it into an application's own router for Consul's paths, or
//! nest it under a prefix.
//!
//! | Method and path | Answer |
//! |---|---|
//! | `GET /v1/operator/autopilot/health` | 200 if every member is healthy, else 429; the body in both |
//! | `GET /v1/operator/autopilot/state` | 200 |
//! | `GET /v1/operator/autopilot/explain` | 200: why every server stands where it stands, who may fail next, what comes next |
//! | `GET /v1/operator/autopilot/explain/{server}` | 200: the same of one server |
//! | `GET /v1/operator/autopilot/history` | 200, from any node that has seen one round: what it did and held back while it led, the newest first |
//! | `GET /v1/operator/autopilot/case` | 200 from any node: this moment as a [`Case`](crate::rehearse::Case), to be replayed |
//! | `GET /v1/operator/autopilot/configuration` | 200; with `?stale` from any node that has seen one round |
//! | `PUT /v1/operator/autopilot/configuration` | 200 `true`; 200 `false` if `?cas=` is not the modify index that stands |
//!
//! | Status | When | Body |
//! |---|---|---|
//! | 400 | the body, a field or `cas` is wrong | `Error`, and `Field` with `Reason` where one field is to blame |
//! | 401 | a token is needed and none was sent | empty |
//! | 403 | the token is wrong, or none is set: then writing is off | empty |
//! | 404 | `/explain/{server}`: no server has that id | `Error` |
//! | 405 | another method; the header `Allow` lists those allowed | `Error`, `Allow` |
//! | 413 | a body over 64 KiB | `Error` |
//! | 503 | this node does not lead with a fresh lease, or its state is too old | `Error`, `Leader`, `LeaderAddress` |
//!
//! A 503 also names the leader's address in the header `x-autopilot-leader`; both are left out
//! where it is not known. A PUT is applied as a whole or not at all; one that was answered 503 after
//! it had been sent on may still be applied, when leadership or time ran out under way. Read, then
//! repeat it with `?cas=`, which cannot overwrite anybody.
//!
//! # Who may ask
//! Writing needs the token of [`Settings::with_token`], as `Authorization: Bearer <token>` or
//! `X-Consul-Token: <token>`; without one set, writing is off. Reading follows [`Reads`]: by
//! default it is open to a peer on loopback and needs the token otherwise. The peer is known
//! only if the application serves with `into_make_service_with_connect_info::<SocketAddr>()`;
//! where it does not, or where `Forwarded` or `X-Forwarded-For` says that a proxy stands between,
//! reading needs the token.
//!
//! # Fields
//! Names, types, omissions and roundings are those of Consul; `dc` and other unknown query
//! parameters are ignored. Fields beside Consul's, which its clients ignore:
//!
//! | Where | Field | What |
//! |---|---|---|
//! | a server | `Verdict`, `Reasons` | `healthy`, `unhealthy` or `unknown`, and the [codes](crate::autopilot::Reason) why |
//! | a server | `Held` | what is wanted of it and not done: `Step`, `Kind`, `Origin`, `Code`, `Why` |
//! | a server | `Cordoned`, `Intent`, `Ext` | the operator's reason; what is announced; what the promoter says. Omitted when empty |
//! | state | `Running`, `Idle` | see [`Running`](crate::autopilot::Running); `Code` and `Why` nothing may be done at all, else omitted |
//! | state | `Planned`, `Held` | the next steps, and all that is held |
//! | state | `VotersHealthy`, `Quorum`, `Term`, `Age` | the separate verdicts, the leader's term, and how old all this is |
//! | state | `BlindSpots` | `Code` and `What` of each thing that autopilot cannot see |
//! | state, and all of `/explain` | `Warnings` | what the state and the promoter warn of, and what is left out here because the application has panicked or hangs. Omitted from the state when empty; beside one server only panics of the promoter |
//! | state | `Upgrade.Waits` | what a migration waits for, in words. Omitted when it waits for nothing |
//! | state | `Ext` | what the promoter says of the cluster. Omitted when empty |
//! | a server, and state | `Work` | what it works on, where [`Settings::with_work`] tells it |
//! | history | `Node`, `Running`, `Decisions` | whose it is; each decision with `Number`, `Time`, `Took`, `Step`, `Kind`, `Origin`, `Code`, `Why`, `Reasons` by server, and `Force` where a person gave one |
//! | configuration | the fields of [`Config`](crate::autopilot::Config) that Consul lacks | under their names in `CamelCase` |
//!
//! A PUT replaces the whole configuration: what is left out, or `null`, falls back to its default
//! for the host's heartbeat, never to the current value. The defaults of the fields that Consul
//! lacks follow `LastContactThreshold` and `MaxTrailingLogs`, so that a Consul client need not
//! know them. `CreateIndex` and `ModifyIndex` are accepted and ignored. Unknown fields are refused.
//!
//! # Decisions
//! *Why is `LastContact` `2562047h47m16.854775807s` for a server that was never in contact?*
//! It is the longest duration that Consul's clients can read. The word `never` would fail
//! their decoding of the whole answer; `null`, zero and a negative number read as perfect. This
//! one is past every threshold, and `Reasons` says `no-contact-yet` beside it.
//!
//! *Why is an unknown server not `Healthy`?* Consul has a bool. Unknown is not known to be good;
//! `Verdict` tells the two apart.
//!
//! *Which wall clock?* Time inside is monotonic; this room alone adds a wall clock, of the node
//! that answers, which moves a `StableSince` only if that clock is set anew.

mod auth;
mod config;
pub mod durations;
mod explain;
mod router;
mod settings;
mod wall;
mod wire;

pub use router::router;
pub use settings::{Reads, Settings, Work};
