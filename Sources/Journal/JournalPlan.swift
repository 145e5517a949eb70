/// What the journal may use, and when it does what. The defaults are those of the product.
package struct JournalPlan: Hashable, Sendable {
    /// A segment grows to this many bytes; one for a larger Record grows to what that needs.
    package var segmentBytes = 4 << 20
    /// Above it the log is full: pressure is reported until it is below nine tenths.
    package var sizeLimitBytes = 4 << 30
    /// What the flash may be given in a day; nil where it may be given what comes. See `FlashBudget`.
    package var flashBudget: FlashBudget?
    /// A batch takes Records up to this many bytes, or one larger Record.
    package var batchBytesMax = 1 << 20
    /// Records that are not durable yet may hold about this much memory. Above it pressure is reported until they
    /// hold half: flash may stall a sync for seconds.
    package var bufferBytesMax = 8 << 20
    /// When what somebody waits for is committed.
    package var commits = CommitPlan.balanced
    /// How long a Record for which nobody waits may wait for company.
    package var lazyDelayMilliseconds: UInt64 = 5_000
    /// A checkpoint is due when the log has grown by this much, or by `checkpointGrowthFactor` times the last
    /// checkpoint where that is more.
    package var checkpointGrowthBytes = 16 << 20
    package var checkpointGrowthFactor = 20
    /// A checkpoint is also due when this many segments have begun since the last: restarts make small ones.
    package var checkpointSegments = 64
    /// Under pressure space is measured, and a checkpoint that may free some is due, this often; the latter also when the
    /// log has grown by half a segment, or by as much as the last checkpoint had, but at most a quarter of what must stay
    /// free.
    package var pressureCheckMilliseconds: UInt64 = 5_000
    package var pressureCheckpointMilliseconds: UInt64 = 30_000

    /// Free files that are kept to become segments.
    package var freeSegmentsMax = 6
    /// Written ahead and given up when the disk is full, so that acknowledgements, deletions and checkpoints can
    /// still be written; 0 for none.
    package var reserveBytes = 0
    /// Where files are overwritten in place, one that was no segment before grows by as much at a time, with zeros
    /// behind the batch; 0 to grow by the batch alone. Growing costs a commit of the file system's own journal, some
    /// 20 KiB, and a small batch much more than its zeros do.
    package var growthBytes = 128 << 10

    /// Of what the log has beyond twice what is owed of it, so much is left alone.
    package var compactionSlackBytes = 64 << 20
    /// How often it is looked for something to compact.
    package var compactionLookMilliseconds: UInt64 = 10_000
    /// Compaction writes no faster, on the logical clock.
    package var compactionBytesPerSecond = 1 << 20

    package init() {}

    /// What must stay free on the file system besides room for a checkpoint: a twentieth, and three segments.
    func freeBytesMin(total: UInt64) -> UInt64 { max(total / 20, 3 * UInt64(segmentBytes)) }
}
