//! The few messages of etcd's protocol that are spoken here, with their field numbers.

use prost::bytes::Bytes;
use prost::{Message, Oneof};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

/// Reads one key. Without `serializable` it shows all that was committed before it was asked.
#[derive(Clone, PartialEq, Message)]
pub(super) struct RangeRequest {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) key: Bytes,
    #[prost(bool, tag = "7")]
    pub(super) serializable: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Header {
    #[prost(uint64, tag = "2")]
    pub(super) member_id: u64,
    #[prost(int64, tag = "3")]
    pub(super) revision: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct KeyValue {
    #[prost(int64, tag = "3")]
    pub(super) mod_revision: i64,
    #[prost(bytes = "bytes", tag = "5")]
    pub(super) value: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RangeResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) header: Option<Header>,
    #[prost(message, repeated, tag = "2")]
    pub(super) kvs: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PutRequest {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) value: Bytes,
}

/// Target of a [`Compare`] by the revision at which a key was made.
pub(super) const TARGET_CREATE: i32 = 1;
/// By the revision of its last change.
pub(super) const TARGET_MOD: i32 = 2;

/// A condition: the key's revision equals this one (`result` 0).
#[derive(Clone, PartialEq, Message)]
pub(super) struct Compare {
    #[prost(int32, tag = "1")]
    pub(super) result: i32,
    #[prost(int32, tag = "2")]
    pub(super) target: i32,
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) key: Bytes,
    #[prost(oneof = "Revision", tags = "5, 6")]
    pub(super) revision: Option<Revision>,
}

#[derive(Clone, Copy, PartialEq, Oneof)]
pub(super) enum Revision {
    #[prost(int64, tag = "5")]
    Create(i64),
    #[prost(int64, tag = "6")]
    Mod(i64),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RequestOp {
    #[prost(oneof = "Op", tags = "1, 2")]
    pub(super) op: Option<Op>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Op {
    #[prost(message, tag = "1")]
    Range(RangeRequest),
    #[prost(message, tag = "2")]
    Put(PutRequest),
}

/// Does `success` if every condition holds, else `failure`, as one.
#[derive(Clone, PartialEq, Message)]
pub(super) struct TxnRequest {
    #[prost(message, repeated, tag = "1")]
    pub(super) compare: Vec<Compare>,
    #[prost(message, repeated, tag = "2")]
    pub(super) success: Vec<RequestOp>,
    #[prost(message, repeated, tag = "3")]
    pub(super) failure: Vec<RequestOp>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ResponseOp {
    #[prost(message, optional, tag = "1")]
    pub(super) range: Option<RangeResponse>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TxnResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) header: Option<Header>,
    #[prost(bool, tag = "2")]
    pub(super) succeeded: bool,
    #[prost(message, repeated, tag = "3")]
    pub(super) responses: Vec<ResponseOp>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct StatusRequest {}

#[derive(Clone, PartialEq, Message)]
pub(super) struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) header: Option<Header>,
    #[prost(uint64, tag = "4")]
    pub(super) leader: u64,
}

impl RequestOp {
    /// Reads a key.
    pub(super) fn range(key: Bytes) -> Self {
        Self { op: Some(Op::Range(RangeRequest { key, serializable: false })) }
    }

    /// Writes one.
    pub(super) fn put(key: Bytes, value: Bytes) -> Self {
        Self { op: Some(Op::Put(PutRequest { key, value })) }
    }
}

impl Compare {
    /// The key was last changed at this revision.
    pub(super) fn changed_at(key: Bytes, revision: i64) -> Self {
        Self { result: 0, target: TARGET_MOD, key, revision: Some(Revision::Mod(revision)) }
    }

    /// There is no such key.
    pub(super) fn is_absent(key: Bytes) -> Self {
        Self { result: 0, target: TARGET_CREATE, key, revision: Some(Revision::Create(0)) }
    }
}

/// A connection, which many clients may share.
#[derive(Debug, Clone)]
pub(super) struct Kv(Grpc<Channel>);

impl Kv {
    pub(super) fn new(channel: Channel) -> Self {
        Self(Grpc::new(channel))
    }

    pub(super) async fn range(&mut self, request: RangeRequest) -> Result<RangeResponse, Status> {
        self.call("/etcdserverpb.KV/Range", request).await
    }

    pub(super) async fn txn(&mut self, request: TxnRequest) -> Result<TxnResponse, Status> {
        self.call("/etcdserverpb.KV/Txn", request).await
    }

    pub(super) async fn status(&mut self) -> Result<StatusResponse, Status> {
        self.call("/etcdserverpb.Maintenance/Status", StatusRequest {}).await
    }

    async fn call<Q, A>(&mut self, path: &'static str, request: Q) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        self.0.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let codec: ProstCodec<Q, A> = ProstCodec::default();
        let answer = self.0.unary(Request::new(request), PathAndQuery::from_static(path), codec).await?;
        Ok(answer.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_has_the_bytes_that_the_protocol_says() {
        let key = || Bytes::from_static(b"k");
        let txn = TxnRequest {
            compare: vec![Compare::changed_at(key(), 7), Compare::is_absent(Bytes::from_static(b"o"))],
            success: vec![RequestOp::put(key(), Bytes::from_static(b"v"))],
            failure: vec![RequestOp::range(key())],
        };
        let compare_mod = [0x0a, 7, 0x10, 2, 0x1a, 1, b'k', 0x30, 7];
        let compare_create = [0x0a, 7, 0x10, 1, 0x1a, 1, b'o', 0x28, 0];
        let success = [0x12, 8, 0x12, 6, 0x0a, 1, b'k', 0x12, 1, b'v'];
        let failure = [0x1a, 5, 0x0a, 3, 0x0a, 1, b'k'];
        let expected = [&compare_mod[..], &compare_create, &success, &failure].concat();
        assert_eq!(txn.encode_to_vec(), expected);
    }

    #[test]
    fn answers_are_read_past_the_fields_that_are_not_wanted_here() {
        // Header: cluster 1, member 2, revision 3, term 4. Then `succeeded`, and one read of one key.
        let header = [0x0a, 8, 0x08, 1, 0x10, 2, 0x18, 3, 0x20, 4];
        let kv = [0x0a, 1, b'k', 0x10, 5, 0x18, 6, 0x20, 1, 0x2a, 1, b'9'];
        let range = [&[0x12, kv.len() as u8][..], &kv, &[0x20, 1]].concat();
        let op = [&[0x0a, range.len() as u8][..], &range].concat();
        let answer = [&header[..], &[0x10, 1], &[0x1a, op.len() as u8], &op].concat();
        let txn = TxnResponse::decode(&answer[..]).unwrap();
        assert_eq!(txn.header, Some(Header { member_id: 2, revision: 3 }));
        let kv = KeyValue { mod_revision: 6, value: Bytes::from_static(b"9") };
        let range = RangeResponse { header: None, kvs: vec![kv] };
        assert_eq!((txn.succeeded, txn.responses), (true, vec![ResponseOp { range: Some(range) }]));
    }
}
