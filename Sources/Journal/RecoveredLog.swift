import GatewayCore

/// How recovery looks at a store: a directory of flat files. The disk has one implementation, the simulator
/// another.
package protocol StoreReader {
    mutating func names() throws(StoreReadFailure) -> [String]
    /// In bytes.
    mutating func size(of name: String) throws(StoreReadFailure) -> Int
    /// Fewer bytes than asked for only at the end of the file.
    mutating func read(_ name: String, at offset: Int, count: Int) throws(StoreReadFailure) -> [UInt8]
    /// Syncs a file: a process that died after `pwrite` leaves bytes that can be read and are not durable.
    mutating func makeDurable(_ name: String) throws(StoreReadFailure)
    mutating func makeDirectoryDurable() throws(StoreReadFailure)
}

package struct StoreReadFailure: Error, Hashable, Sendable {
    package var name: String
    package var errorNumber: Int32

    package init(name: String, errorNumber: Int32) {
        self.name = name
        self.errorNumber = errorNumber
    }

    /// Whether this is no file that could be read, now or later: EISDIR, EBADMSG or EUCLEAN. What is not there any
    /// more, or not allowed, is another matter.
    var isDamage: Bool { [21, 74, 117].contains(errorNumber) }
}

/// Why a store cannot be recovered at all. Damage is no reason: it is worked around and reported.
package enum RecoveryError: Error, Hashable, Sendable {
    /// There is neither a `FORMAT` nor anything that tells the store's identity.
    case noStore
    /// A newer version wrote this, with features that must not be ignored.
    case unknownFeatures(file: String, bits: UInt32)
    /// A newer version wrote Records of a type that must not be ignored.
    case unknownRecordType(file: String, type: UInt8)
    case unreadable(StoreReadFailure)
}

/// What recovery found, and where the journal goes on.
package struct RecoveredLog: Sendable, Equatable {
    package var store: StoreID
    /// The last Record there is; new ones come after it.
    package var last: Position
    package var clock: Instant
    /// Of the boot that wrote last.
    package var boot: UInt32
    package var anchor: WallAnchor?
    /// Of the last boot, as far as it told.
    package var uptime: Uptime?
    /// The first start behind `anchor` that followed another boot of the machine, or one that did not tell.
    package var unproven: UnprovenStart?
    /// What the next segment's header names.
    package var tail: SegmentEnd
    package var nextSegment: UInt64
    /// In rising order.
    package var segments: [Segment]
    /// The parts of the log that are complete, in rising order: all there is.
    package var stretches: [Stretch] { segments.compactMap(\.stretch) }
    /// Valid ones, in rising order.
    package var checkpoints: [CheckpointFile]
    /// Nothing was in flight when the last boot ended.
    package var wasCleanShutdown: Bool
    package var report: RecoveryReport
    /// What it has cost the flash so far, as far as that is known.
    package var wear = Wear()
    /// Files that may become segments, in rising order.
    package var free: [FreeSegment] = []
    /// Of `report.unfinished`, what could not be deleted: it is tried again.
    package var leftOver: [StoreFile] = []
    /// The reserve is there.
    package var hasReserve = false
    /// Whether overwriting costs less than appending on this file system, so that files are used again.
    package var recycles = false
    /// Of the file system, where it was measured: so that the journal knows before its first write whether there
    /// is room for it.
    package var space: FileSystemSpace?

    package struct CheckpointFile: Hashable, Sendable {
        package var position: Position
        package var bytes: Int
    }

    /// A file has this number, which no new segment may have.
    mutating func passNumber(_ id: UInt64) { nextSegment = max(nextSegment, id &+ 1) }
}

/// What was wrong, for the log and for the files' sake.
package struct RecoveryReport: Sendable, Equatable {
    /// Ends that a power cut tore: nothing that was acknowledged was in them.
    package var tornTails: [ByteRange] = []
    /// Committed bytes that do not verify any more.
    package var damaged: [ByteRange] = []
    /// Records that are gone, in ranges; some may be of Sessions that were owed nothing by them.
    package var lost: [ClosedRange<UInt64>] = []
    /// Files that are not this store's or not readable as what their name says: to be put aside.
    package var setAside: [String] = []
    /// What a power cut left of creating a file: to be deleted.
    package var unfinished: [String] = []
    /// `FORMAT` was missing or damaged and must be written anew.
    package var formatIsDamaged = false

    package struct ByteRange: Hashable, Sendable {
        package var file: String
        package var bytes: Range<Int>

        package init(file: String, bytes: Range<Int>) {
            self.file = file
            self.bytes = bytes
        }
    }

    /// Whether anything that was durable is damaged.
    package var isDamaged: Bool { !damaged.isEmpty || !lost.isEmpty || !setAside.isEmpty || formatIsDamaged }
}
