//! The contract of a store, by etcd's requests.

use std::time::Duration;

use etcd_client::{LeaseGrantOptions, LeaseTimeToLiveOptions};

use super::{
    client::Etcd,
    convert::{self, Failure, signed, unsigned},
    watch::EtcdWatch,
};
use crate::{
    runtime::Runtime,
    store::{
        contract::{Lease, LeaseState, Store},
        error::{Refusal, StoreError},
        kv::{KeyRange, LeaseId},
        txn::{Limits, RangeRequest, RangeResponse, Txn, TxnResponse, check_range},
    },
};

/// That a lease does not stand, or why it is not known.
fn of_lease(id: LeaseId) -> impl Fn(Failure) -> StoreError {
    move |failure| match failure {
        Failure::NoLease => Refusal::LeaseNotFound(id).into(),
        other => other.of_writing(),
    }
}

impl<R: Runtime> Store for Etcd<R> {
    type Watch = EtcdWatch;

    fn limits(&self) -> Limits {
        self.shared.options.limits
    }

    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StoreError> {
        request.check()?;
        let revision = request.revision.unwrap_or_default();
        self.get(&request).await.map_err(|failure| match failure {
            Failure::Compacted => Refusal::Compacted { compacted: revision + 1 }.into(),
            Failure::Ahead => self.ahead(revision),
            other => other.of_reading(),
        })
    }

    async fn commit(&self, txn: Txn) -> Result<TxnResponse, StoreError> {
        txn.check(&self.shared.options.limits)?;
        let (reading, txn) = (!txn.writes(), &txn);
        let len = self.shared.options.response_len;
        let done = self.call(reading, |client| async move {
            client.kv_client().max_decoding_message_size(len).txn(convert::txn(txn)).await
        });
        let done = done.await.map_err(|failure| match failure {
            Failure::NoLease => Refusal::LeaseNotFound(convert::first_lease(txn)).into(),
            Failure::Compacted => {
                Refusal::Compacted { compacted: convert::first_revision(txn) + 1 }.into()
            }
            Failure::Ahead => self.ahead(convert::first_revision(txn)),
            other if reading => other.of_reading(),
            other => other.of_writing(),
        })?;
        // Whatever it was that another cluster has done.
        let revision = self.revision(done.header()).map_err(Failure::of_writing)?;
        convert::txn_response(txn, &done, revision).ok_or_else(|| {
            StoreError::Unknown("the answer does not fit the transaction".to_owned())
        })
    }

    async fn watch(&self, range: KeyRange, from: u64) -> Result<EtcdWatch, StoreError> {
        check_range(&range)?;
        EtcdWatch::open(self.clone(), range, from).await
    }

    async fn grant(&self, ttl: Duration, id: Option<LeaseId>) -> Result<Lease, StoreError> {
        let seconds = ttl.as_secs().saturating_add(u64::from(ttl.subsec_nanos() > 0));
        if seconds == 0 || seconds > Lease::TTL_MAX.as_secs() {
            let most = Lease::TTL_MAX;
            let what = format!("a lease of {ttl:?}: it lasts more than 0 and at most {most:?}");
            return Err(Refusal::Invalid(what).into());
        }
        if let Some(id) = id
            && (id == LeaseId::NONE || id > LeaseId::MAX)
        {
            return Err(Refusal::Invalid(format!("{id} is not the id of a lease")).into());
        }
        let granted = self.call(false, |client| async move {
            let options = LeaseGrantOptions::new().with_id(id.map_or(0, |id| signed(id.0)));
            client.lease_client().grant(signed(seconds), Some(options)).await
        });
        let granted = granted.await.map_err(|failure| match (failure, id) {
            (Failure::LeaseExists, Some(id)) => Refusal::LeaseExists(id).into(),
            (other, _) => other.of_writing(),
        })?;
        let ttl = Duration::from_secs(unsigned(granted.ttl()));
        Ok(Lease { id: LeaseId(unsigned(granted.id())), ttl })
    }

    async fn keep_alive(&self, id: LeaseId) -> Result<Duration, StoreError> {
        // Twice is the same as once.
        let kept = self.call(true, |client| async move {
            let (mut keeper, mut answers) = client.lease_client().keep_alive(signed(id.0)).await?;
            // The first answer is swallowed with its time to live; the second is not.
            keeper.keep_alive().await?;
            Ok(answers.message().await?.map(|answer| answer.ttl()))
        });
        match kept.await {
            Ok(Some(ttl)) if ttl > 0 => Ok(Duration::from_secs(unsigned(ttl))),
            Ok(Some(_)) => Err(Refusal::LeaseNotFound(id).into()),
            Ok(None) => Err(StoreError::Retry("the answer to a keep-alive is missing".to_owned())),
            Err(Failure::Unsent(why) | Failure::Unanswered(why)) => Err(StoreError::Retry(why)),
            Err(failure) => Err(of_lease(id)(failure)),
        }
    }

    async fn revoke(&self, id: LeaseId) -> Result<(), StoreError> {
        let revoked = self
            .call(false, |client| async move { client.lease_client().revoke(signed(id.0)).await });
        revoked.await.map(drop).map_err(of_lease(id))
    }

    async fn time_to_live(&self, id: LeaseId) -> Result<LeaseState, StoreError> {
        let lease = self.call(true, |client| async move {
            let options = LeaseTimeToLiveOptions::new().with_keys();
            client.lease_client().time_to_live(signed(id.0), Some(options)).await
        });
        let lease = lease.await.map_err(Failure::of_reading)?;
        // Less than a second is left of one that says zero.
        if lease.ttl() < 0 || lease.granted_ttl() <= 0 {
            return Err(Refusal::LeaseNotFound(id).into());
        }
        let mut keys: Vec<_> = lease.keys().iter().map(|key| key.as_slice().into()).collect();
        keys.sort();
        Ok(LeaseState {
            ttl: Duration::from_secs(unsigned(lease.granted_ttl())),
            remaining: Duration::from_secs(unsigned(lease.ttl())),
            keys,
        })
    }

    async fn compact(&self, revision: u64) -> Result<(), StoreError> {
        let done = self.call(false, |client| async move {
            client.kv_client().compact(signed(revision), None).await
        });
        done.await.map(drop).map_err(|failure| match failure {
            Failure::Compacted => Refusal::Compacted { compacted: revision }.into(),
            Failure::Ahead => self.ahead(revision),
            other => other.of_writing(),
        })
    }
}
