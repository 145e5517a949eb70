import GatewayCore

// What recovery knows of a file before it is read.
extension Recovery {
    struct Found {
        let id: UInt64
        let name: String
        let size: Int
        /// nil when damaged, and when the checkpoint says all there is to know.
        let header: SegmentHeader?
        /// The segment as the checkpoint has it: it is not looked into.
        let covered: Segment?
        var isMerged: Bool { if case .merged = StoreFile(name: name) { true } else { false } }
    }

    struct MergedFile {
        let found: Found
        let stretch: Stretch
    }

    /// What is known of a segment before its batches are read.
    struct Bounds {
        /// In bytes from the start of the file.
        let limit: Int
        let isLimitKnown: Bool
        /// Records up to here were durable.
        let proven: Position
        /// Later Records are in later segments.
        let cut: Position?
        let isRecycled: Bool
    }
}
