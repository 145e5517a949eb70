import GatewayCore
import MQTT
import Testing

@testable import Journal

/// Counts what is asked of a disk.
private struct CountingReader: StoreReader {
    var disk: FaultDisk
    /// In bytes, whether they are there or not.
    private(set) var asked = 0
    private(set) var largest = 0

    init(_ disk: FaultDisk) { self.disk = disk }

    mutating func names() throws(StoreReadFailure) -> [String] { disk.names() }
    mutating func size(of name: String) throws(StoreReadFailure) -> Int { try disk.size(of: name) }
    mutating func makeDurable(_ name: String) throws(StoreReadFailure) { try disk.makeDurable(name) }
    mutating func makeDirectoryDurable() throws(StoreReadFailure) { try disk.makeDirectoryDurable() }

    mutating func read(_ name: String, at offset: Int, count: Int) throws(StoreReadFailure) -> [UInt8] {
        asked += count
        largest = max(largest, count)
        return try disk.read(name, at: offset, count: count)
    }
}

/// A length on the disk leads to no read and no memory before a checksum has vouched for it, nor where it cannot be
/// true whatever vouches for it.
@Suite("Forged lengths")
struct ForgedLengthTests {
    static let forged: [UInt32] = [0, 1, 4096, 1 << 20, 1 << 26, 1 << 31, .max]

    /// What one window into a segment may take.
    static let windowBytes = 64 << 10

    /// A log of three batches and a checkpoint, in segments with footers.
    static func sample() throws -> FaultDisk {
        var rig = try JournalTests.rig()
        for n in 0..<30 {
            rig.append(
                Samples.plain("m\(n)", delivery: UInt64(n), payload: Array(repeating: 7, count: 1500)))
            try rig.settle()
            if n == 10 || n == 20 { try rig.checkpoint() }
        }
        return rig.disk
    }

    /// Recovers with the length at `place` forged, with and without a checksum that vouches for it.
    private static func expectFrugal(
        _ disk: FaultDisk, _ name: String, at start: Int, headSize: Int, seed: UInt32,
        at location: SourceLocation = #_sourceLocation
    ) throws {
        var whole = CountingReader(disk)
        _ = try Recovery.recover(&whole) { _, _ in }
        let total = disk.fileNames().reduce(0) { $0 + disk.content($1).count }
        for length in forged {
            for isSealed in [false, true] {
                var bytes = disk.content(name)
                bytes.put(length, at: start + 8)
                if isSealed {
                    bytes.put(Checksum.of(bytes, start + 8..<start + headSize, seed: seed), at: start + 4)
                }
                var spoiled = disk
                spoiled.put(name, bytes)
                var reader = CountingReader(spoiled)
                let log = try Recovery.recover(&reader) { _, _ in }
                #expect(log.store == testStore, sourceLocation: location)
                #expect(reader.largest <= max(whole.largest, windowBytes), sourceLocation: location)
                // Looking for what comes behind the damage reads the rest once more.
                #expect(reader.asked <= whole.asked + 2 * total + windowBytes, sourceLocation: location)
            }
        }
    }

    @Test("the payload's length in the header of a batch")
    func batches() throws {
        let disk = try Self.sample()
        let store = try #require(testStore)
        let batches = BatchMap(disk, store).batches
        #expect(batches.count == 30)
        for batch in batches.suffix(12) {
            guard case .segment(let id) = StoreFile(name: batch.file) else { continue }
            try Self.expectFrugal(
                disk, batch.file, at: batch.bytes.lowerBound, headSize: BatchHeader.size,
                seed: Checksum.seed(store, id, offset: batch.bytes.lowerBound))
        }
    }

    @Test("a chunk's length in a checkpoint")
    func chunks() throws {
        let disk = try Self.sample()
        let store = try #require(testStore)
        for name in disk.fileNames() {
            guard case .checkpoint(let position) = StoreFile(name: name) else { continue }
            let seed = CheckpointChunk.seed(store, Position(position))
            let bytes = disk.content(name)
            var offset = 0
            var count = 0
            while offset < bytes.count {
                try Self.expectFrugal(
                    disk, name, at: offset, headSize: CheckpointChunk.headSize, seed: seed)
                let head = try CheckpointChunk.head(Array(bytes[offset...]), seed: seed)
                offset += CheckpointChunk.headSize + head.length
                count += 1
            }
            // Header, wear, Records and end.
            #expect(count == 4)
        }
    }

    @Test(
        "a footer's length: the segment is scanned instead, by reads no longer than for a footer that is gone"
    )
    func footers() throws {
        let disk = try Self.sample()
        let store = try #require(testStore)
        var plain = disk
        let log = try Recovery.recover(&plain) { _, _ in }
        let complete = log.segments.dropLast()
        #expect(complete.count >= 3)
        for segment in complete {
            let name = StoreFile.segment(segment.id).name
            let found = Self.index(of: segment, disk.content(name), store)
            for length in Self.forged {
                for isSealed in [false, true] {
                    var bytes = disk.content(name)
                    bytes.put(length, at: segment.end + 8)
                    if isSealed {
                        let range = segment.end + 8..<segment.end + Footer.headSize
                        let seed = Checksum.seed(store, segment.id, offset: segment.end)
                        bytes.put(Checksum.of(bytes, range, seed: seed), at: segment.end + 4)
                    }
                    let again = Self.index(of: segment, bytes, store)
                    #expect(again.index.batches == found.index.batches)
                    #expect(again.index.lists == found.index.lists)
                    #expect(again.largest <= max(256 << 10, 9 * segment.end))
                }
            }
        }
    }

    /// What the fetching of an index comes to, and the longest read that it asked for.
    private static func index(of segment: Segment, _ bytes: [UInt8], _ store: StoreID) -> (
        index: SegmentIndex, largest: Int
    ) {
        var fetch = IndexFetch(segment, store: store)
        var range = fetch.firstRead
        var largest = 0
        while true {
            largest = max(largest, range.count)
            let part = range.clamped(to: 0..<bytes.count)
            switch fetch.answered(.read(Array(bytes[part])), isWritable: true, at: Instant(milliseconds: 0)) {
            case .read(let next), .later(let next, _): range = next
            case .found(let index): return (index, largest)
            }
        }
    }

    @Test("the count of a list in a Record takes no memory that the Record's own bytes do not bear out")
    func recordLists() throws {
        var dice = Dice(3)
        for which in 0..<Samples.caseCount {
            for _ in 0..<50 {
                let record = Samples.record(which, &dice, payloadMax: 20)
                var bytes: [UInt8] = []
                RecordCodec.encode(record, into: &bytes)
                for place in 1..<bytes.count {
                    // The largest integer of each length in the place of one byte.
                    for length in [1, 4, 8] {
                        var forged = Array(bytes[..<place])
                        forged += Array(repeating: 0xFF, count: length) + [0x7F]
                        forged += bytes[(place + 1)...]
                        do {
                            guard let found = try RecordCodec.decode(forged) else { continue }
                            // No element came from nothing.
                            var again: [UInt8] = []
                            RecordCodec.encode(found, into: &again)
                            #expect(again.count <= forged.count + 16)
                        } catch {}
                    }
                }
            }
        }
    }
}
