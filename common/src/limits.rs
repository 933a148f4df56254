//! Every bound in the system, each with the reason for its value.

/// Characters of a [`crate::Name`]: fits a DNS label and every file system.
pub const NAME_LENGTH: usize = 63;
/// Bytes of a batch name inside a [`crate::ConditionKey`]: the longest seen in public atlases is under 80.
pub const BATCH_NAME_BYTES: usize = 128;
/// Bytes of one transfer chunk: large enough that hashing and framing vanish, small enough to send again.
pub const CHUNK_BYTES: u64 = 1 << 20;
/// Bytes of one frame on a control stream. A task with a thousand conditions encodes to about 200 KiB.
pub const FRAME_BYTES: usize = 4 << 20;
/// Requests of one session that may wait for their answers at once; a worker has a handful, a load generator hundreds.
pub const REQUESTS_IN_FLIGHT: usize = 64;
/// Streams that a peer may have open at once on one connection: a session, its transfers, and room.
pub const STREAMS: u32 = 64;
/// Bytes of a blob: an atlas reference of 60 k genes and 1,024 hidden units is 0.5 GB; this leaves room for full ones.
pub const BLOB_BYTES: u64 = 64 << 30;
/// Bytes of the columns of one condition: 2 layers × 1,024 units × 4 bytes is 8 KiB; per-condition dispersion of 60 k genes 240 KiB.
pub const COLUMNS_BYTES: u64 = 4 << 20;
/// Bytes of one member of a part: a graph network that a site trained has some hundred thousand weights; the leader reads
/// a member whole before it is accepted.
pub const PART_BYTES: u64 = 64 << 20;
/// Numbers in one table of a pool: products of 1,024 latent dimensions. They take 16 bytes each.
pub const POOL_NUMBERS: usize = 1 << 20;
/// Figures that a model reports of a condition.
pub const FIGURES: usize = 64;
/// Axes, parts and derived values of a layout, together.
pub const SECTIONS: usize = 64;
/// Bytes of a safetensors header; the format's own limit.
pub const TENSOR_HEADER_BYTES: usize = 100 << 20;
/// Tensors in one state dict: deep models have some hundreds.
pub const TENSORS: usize = 65_536;
/// Genes in a panel: more than any annotation has.
pub const GENES: usize = 1 << 20;
/// Conditions in one version: the largest atlases have some thousands of samples.
pub const CONDITIONS: usize = 65_536;
/// Conditions that one submission may carry.
pub const SUBMITTED_CONDITIONS: usize = 4_096;
/// Bytes of an error text or reason that travels.
pub const REASON_BYTES: usize = 1_024;
/// Tasks that may be open at once.
pub const OPEN_TASKS: usize = 1_024;
/// Sites that may be enrolled.
pub const SITES: usize = 16_384;
/// Invitations that are open, wait for an operator, or were answered and have not expired: sites come one by one.
pub const INVITATIONS: usize = 1_024;
/// Longest life of an invitation, in milliseconds: 30 days. It is as good as a password while it lives.
pub const LONGEST_INVITATION_MS: u64 = 30 * 24 * 3_600_000;
/// Names and certificates that coordinators keep the ends of: sites, and all others many times over.
pub const PRINCIPALS: usize = 2 * SITES;
/// Hashes of a site's own log that go with one anchor; a longer log comes in several.
pub const ANCHOR_HASHES: usize = 1_024;
/// Bytes of acts that coordinators remember, some twenty thousand; earlier ones are in the exports of auditors.
pub const ACT_BYTES: u64 = 8 << 20;
/// Names, and keys, that are shut out and no sites.
pub const REVOCATIONS: usize = 4_096;
/// Proposals that wait for a second person: people write each of them, and people read them.
pub const PROPOSALS: usize = 64;
/// Proposals that are remembered, those that wait among them.
pub const PROPOSALS_KEPT: usize = 512;
/// How long a proposal waits: a week, as somebody may be away for some days.
pub const PROPOSAL_MS: u64 = 7 * 86_400_000;
/// Bytes of a signing request or of a certificate, PEM: each is under 1 KiB with the keys that are made here.
pub const CERTIFICATE_BYTES: usize = 8 << 10;
/// How long before its end a certificate is worth a warning, in milliseconds: 30 days, time for a person who is on holiday.
pub const CERTIFICATE_WARNING_MS: u64 = 30 * 24 * 3_600_000;
/// Request keys of one asker that are remembered for answering a repeated request with its first answer; an asker has some
/// dozens under way at once.
pub const REMEMBERED_REQUESTS: usize = 8_192;
/// Request keys of all askers that are remembered; beyond it the asker with most of them forgets. Every one of 1,000 sites
/// has room for 130.
pub const REMEMBERED_IN_ALL: usize = 131_072;
/// Shortest time between two replicated lease renewals of one assignment, in milliseconds.
pub const RENEWAL_INTERVAL_MS: u64 = 10_000;
/// Norm of one condition's columns that a task allows unless it says otherwise; trained columns stay below 30.
pub const COLUMN_NORM: f64 = 1_000.0;
/// References that a consortium may keep.
pub const REFERENCES: usize = 1_024;
/// Entries in a reference's lineage beyond which nothing more is merged; withdrawals are never refused for it.
pub const LINEAGE: usize = 16_384;
/// Tasks that are remembered, open or not.
pub const TASKS: usize = 65_536;
/// Shortest lease of an assignment, in milliseconds: renewals come three times as often, and pass through the log.
pub const SHORTEST_LEASE_MS: u64 = 1_000;
/// Lease of an assignment unless its task says otherwise, in milliseconds: a worker that died is replaced within 30 s,
/// and one that lives may miss a renewal (one comes every third of it) while a new leader is elected.
pub const LEASE_MS: u64 = 25_000;
/// Longest lease of an assignment, in milliseconds: a week.
pub const LONGEST_LEASE_MS: u64 = 7 * 24 * 3_600_000;
/// Bytes of the coordinators' replicated state: four times what it may grow to, so that no snapshot is ever too large.
pub const SNAPSHOT_BYTES: usize = 1 << 30;
/// Bytes of the replicated state beyond which nothing is accepted that makes it grow. What ends or takes back is never
/// refused for it. 65,536 conditions in 16,384 versions of 1,000 sites take about 30 MB.
pub const STATE_BYTES: u64 = 256 << 20;
/// Conditions that may ever be merged into one reference, those included that were withdrawn again: its history is
/// walked when it is restored, and what is withdrawn was merged before.
pub const MERGED_CONDITIONS: usize = 4 * CONDITIONS;
/// Items of one answer: a page of the longest of them fits into a frame, and is collected in about a millisecond.
pub const PAGE_ITEMS: usize = 1_024;
/// Bytes of one answer's page beyond which it is cut, long before a frame is full.
pub const PAGE_BYTES: usize = 1 << 20;
/// Bytes of a pickle in a foreign saved model, without its tensors: indices of ten million cells take 160 MB as text.
pub const PICKLE_BYTES: usize = 1 << 30;
/// Objects in a pickle: gene names, options and a training history are some hundred thousand.
pub const PICKLE_OBJECTS: usize = 1 << 24;
/// References between objects of a pickle, which take a byte or two each: an object is in a container and in the memo.
pub const PICKLE_REFERENCES: usize = 4 * PICKLE_OBJECTS;
/// Containers that are open at once in a pickle. Python's own writer ends at some thousands.
pub const PICKLE_DEPTH: usize = 1 << 16;
/// Bytes of a signature with its certificates: one of an operator with one authority is some 700.
pub const SIGNATURE_BYTES: usize = 16 << 10;
/// Bytes of a coordinator's address: a DNS name of 253 and a port.
pub const ADDRESS_BYTES: usize = 259;
/// Coordinators that ever were members of one cluster: ids are never reused, so each replaced disk costs one.
pub const MEMBERS: usize = 1_024;
/// Coordinators that vote. More are slower and no safer: seven already survive three failures.
pub const VOTERS: usize = 7;
/// Longest step of time that one leader's stamp makes, in milliseconds. A leader stamps at least twice in it.
pub const STAMP_STEP_MS: u64 = 60_000;
/// Longest step of time that a majority's clocks make without an operator, in milliseconds: a weekend's outage is confirmed.
pub const AGREED_STEP_MS: u64 = 24 * 3_600_000;
/// What clocks may differ in that agree, in milliseconds: many times what NTP leaves.
pub const CLOCK_TOLERANCE_MS: u64 = 10_000;
