import Foundation
import GatewayCore
import Testing

@testable import Journal

/// Stores that once broke a rule of `FuzzedStore`, found by `make fuzz`, and others like them.
///
/// A finding is added with its cause, as the bytes of the file that the fuzzer wrote.
@Suite("What fuzzing finds in recovery")
struct StoresFoundByFuzzing {
    @Test("the inputs that the fuzzer starts from hold what they should, and break nothing")
    func seeds() throws {
        for seed in FuzzedStore.seeds {
            let store = try #require(FuzzedStore(seed))
            #expect(store.brokenRule() == nil)
            var disk = store.disk
            var count = 0
            let log = try Recovery.recover(&disk) { _, _ in count += 1 }
            // Some Records in the examples name others that come later, and a checkpoint must not.
            #expect(count > 0 || !log.report.setAside.isEmpty)
            #expect(log.report.damaged.isEmpty && log.report.tornTails.isEmpty)
        }
    }

    @Test(
        "a checkpoint that has a segment end behind its own position: it was believed as soon as new ones came"
    )
    func endBehindTheCheckpoint() throws {
        var disk = try FuzzedStore.lived(6).disk
        let name = try #require(disk.fileNames().last { $0.hasPrefix("ckpt-") })
        let header = try Forgery.header(of: name, disk)
        let rows = header.segments
        try #require(rows.count > 3)
        // The newest file is always looked into, and names the end of the one before; behind a newer one it is not.
        for file in disk.fileNames() {
            guard case .segment(let id) = StoreFile(name: file), id > rows[2].segment else { continue }
            disk.remove(file)
        }
        try Forgery.change(name, &disk) { bytes in
            bytes.put(1 << 18, at: Forgery.places(ofRow: 1, of: rows.count).last + 4)
        }
        #expect(try Forgery.header(of: name, disk, isBelieved: false).segments.isEmpty)
        #expect(FuzzedStore(disk).brokenRule() == nil)
        let log = try Recovery.recover(&disk) { _, _ in }
        #expect(log.report.setAside == [name])
    }

    @Test("a segment that names the end of one that is yet to come: the new one ended before it began")
    func endOfWhatIsToCome() throws {
        var disk = try FuzzedStore.lived(6).disk
        let ids = disk.fileNames().compactMap { name -> UInt64? in
            guard case .segment(let id) = StoreFile(name: name) else { return nil }
            return id
        }
        let last = try #require(ids.last)
        let name = StoreFile.segment(last).name
        var bytes = disk.content(name)
        var header = try SegmentHeader(decoding: bytes, segment: last)
        header.predecessor.segment = last + 1
        header.predecessor.offset = UInt64(pageBytes)
        bytes.replaceSubrange(0..<pageBytes, with: header.encoded)
        #expect(throws: DecodingError.invalidField) { try SegmentHeader(decoding: bytes, segment: last) }
        disk.put(name, bytes)
        #expect(FuzzedStore(disk).brokenRule() == nil)
    }

    @Test("a batch that calls every Record there can ever be durable")
    func allDurable() throws {
        let store = try #require(testStore)
        for durable in [UInt64(41), countableLimit, .max] {
            var stamp = BatchTests.stamp(store)
            stamp.durableBefore = Position(durable)
            let bytes = BatchTests.batch([Samples.plain("t")], stamp)
            #expect(throws: DecodingError.invalidField) {
                try BatchHeader(decoding: bytes, at: 0, offset: pageBytes, store: store, segment: 7)
            }
        }
    }

    @Test("queues with more messages and bytes on flash than can be counted")
    func countlessMessages() throws {
        let store = try #require(testStore)
        let most = Int(countableLimit) - 1
        let stretch = Stretch(first: Position(1), last: Position(9))
        let long = [
            QueuePage(
                stretch: stretch, first: Delivery(0), span: UInt64(most), waitingCount: most,
                waitingBytes: most)
        ]
        let heavy = (0..<3).map {
            QueuePage(
                stretch: stretch, first: Delivery(4 * $0), span: 4, waitingCount: 4, waitingBytes: most)
        }
        for (pages, isSetAside) in [(long, false), (heavy, true)] {
            var builder = CheckpointBuilder(
                CheckpointHeader(
                    position: Position(9), clock: Instant(milliseconds: 0), boot: 1, nextSegment: 1,
                    anchor: nil, segments: []),
                store: store)
            builder.add(.counters(nextSession: 5))
            for n in 1...4 as ClosedRange<UInt64> {
                builder.add(
                    .sessionOpened(
                        SessionOpened(
                            session: SessionID(n), owner: .client(identifier: "absent-\(n)"),
                            version: .v5_0, expirySeconds: .max, isPersistent: true, will: nil)))
                builder.add(
                    .queue(
                        QueueRecord(session: SessionID(n), floor: Delivery(0), entries: [], pages: pages)))
            }
            var disk = FaultDisk(formatted: store)
            let name = StoreFile.checkpoint(9).name
            disk.put(name, builder.sealed())
            #expect(FuzzedStore(disk).brokenRule() == nil)
            var state = DurableState()
            let log = try Recovery.recover(&disk) { state.apply($0, at: $1) }
            #expect(log.report.setAside == (isSetAside ? [name] : []))
            #expect(state.owes(from: Position(1), through: Position(9)) == !isSetAside)
            #expect(state.owedCount(in: stretch) >= (isSetAside ? 0 : most / 2))
            // One from near the end of a page leaves the rest no less than nothing.
            let settled = AcknowledgedRecord(
                session: SessionID(1), floor: Delivery(0), settledAbove: [Delivery(UInt64(most) - 2)])
            state.apply(.acknowledged(settled), at: Position(10))
            state.snapshot { record in
                var bytes: [UInt8] = []
                RecordCodec.encode(record, into: &bytes)
                #expect(throws: Never.self) { try RecordCodec.decode(bytes) }
            }
        }
    }

    @Test("neighbours that hold the same positions: what comes second is not merged")
    func overlappingVictims() throws {
        let store = try #require(testStore)
        var merge = Merge(
            9, [7, 8].map { (Segment(id: $0, first: Position(41), capacity: 4 * pageBytes), false) },
            store: store)
        for id in [8, 7] as [UInt64] {
            let victim = merge.nextVictim()
            let segment = try #require(victim)
            #expect(segment.id == 15 - id)
            var stamp = BatchTests.stamp(store, segment: segment.id)
            stamp.segment = segment.id
            let records = (0..<2).map { Samples.plain("t", delivery: $0) }
            let bytes = BatchTests.batch(records, stamp)
            let header = try BatchHeader(
                decoding: bytes, at: 0, offset: pageBytes, store: store, segment: segment.id)
            var index = IndexBuilder(segment: segment.id, first: Position(41))
            index.add(header, at: pageBytes)
            for (n, record) in records.enumerated() { index.add(record, at: Position(41 + UInt64(n))) }
            let owed = Owed(index.index, EverythingIsOwed())
            #expect(owed.positions.map(\.number) == [41, 42])
            let isPlanned = merge.plan(segment, owed, index.index, provenAt: .zero)
            #expect(isPlanned == (segment.id == 7))
            guard isPlanned, let (_, range) = merge.nextRead else { continue }
            let isTaken = merge.received(bytes, range, store: store)
            #expect(isTaken)
        }
    }

    @Test("a segment that names a merged file as the one before it, with another end than that says it has")
    func mergedAhead() throws {
        let bytes = try #require(
            Data(base64Encoded: Self.mergedAhead.replacingOccurrences(of: "\n", with: "")))
        #expect(try #require(FuzzedStore(Array(bytes))).brokenRule() == nil)
    }

    @Test("a segment numbered 0: it was read, and no checkpoint that named it could be read afterwards")
    func segmentZero() throws {
        let store = try #require(testStore)
        var disk = FaultDisk(formatted: store)
        for id in [0, 1] as [UInt64] {
            var stamp = BatchTests.stamp(store, segment: id)
            stamp.durableBefore = Position(40 + id)
            stamp.first = Position(41 + id)
            let header = SegmentHeader(
                store: store, segment: id,
                predecessor: SegmentEnd(
                    segment: 0, offset: id == 0 ? 0 : UInt64(2 * pageBytes), last: stamp.durableBefore),
                clock: stamp.clock, boot: 1)
            disk.put(
                StoreFile.segment(id).name,
                header.encoded + BatchTests.batch([Samples.plain("t", delivery: id)], stamp))
        }
        #expect(StoreFile(name: StoreFile.segment(0).name) == nil)
        let log = try Recovery.recover(&disk) { _, _ in }
        #expect(log.segments.map(\.id) == [1])
        #expect(FuzzedStore(disk).brokenRule() == nil)
    }

    @Test("a segment that began at the end of time: the clock could not go on, and a Session was lost")
    func endOfTime() throws {
        let store = try #require(testStore)
        for milliseconds in [1 << 62, UInt64.max - 2] {
            let header = SegmentHeader(
                store: store, segment: 1,
                predecessor: SegmentEnd(segment: 0, offset: 0, last: Position(1_021_709_451_515)),
                clock: Instant(milliseconds: milliseconds), boot: 1)
            #expect(throws: DecodingError.invalidField) {
                try SegmentHeader(decoding: header.encoded, segment: 1)
            }
            var disk = FaultDisk(formatted: store)
            disk.put(StoreFile.segment(1).name, header.encoded)
            #expect(FuzzedStore(disk).brokenRule() == nil)
            var stamp = BatchTests.stamp(store)
            stamp.clock = Instant(milliseconds: milliseconds)
            let batch = BatchTests.batch([Samples.plain("t")], stamp)
            #expect(throws: DecodingError.invalidField) {
                try BatchHeader(decoding: batch, at: 0, offset: pageBytes, store: store, segment: 7)
            }
        }
    }

    private static let mergedAhead = """
        CRAAAAAOAQDKAAkEAAAAAAAAAQAAAAUAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAADAAAAAAAAAAAAAAAAQAAAAAAAAAQAAAAAAAAAAgAA
        AAAAAAAAQAAAAAAAAAkAAAAAABAAAwAAAAAAAAAAQAAAAAAAAA0AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA
        AP8vAAAAAAAAAAAAAAAAAABQAAAAAAAABQAAAAAAAAAAUAAAAAAAAAoAAAAAAAAAAFAAAAAAAAAOAYBIAOgDAAAAAAAAAHABAAAAAAAA
        kAAAAAAAAAAAAAAAAAAACwAAAAAAAAADAAAAAAAAACokAAAAAAAAAAAAAAAAAAAAAAIAAAAAAA4CAOEAAiAFGAMECgX/////Dw4kc2hh
        cmUvZ3JvdXAvdBADAQIF/////w8GcmVhZGVyCgQB7gf/////DwAGBgEBAQF0ESQBAAEDCQsFCQEPCQEZAAAAB6ABAwAAAAAPAwICBf//
        //8PBW90aGVyBgYCAQIBIw0kAgEAAgkMDwIAAAAAB6ACAwACAAAQAwMCBf////8PBm1lbWJlcgoEA/oH/////w8AEwYDAQEOJHNoYXJl
        L2dyb3VwL3QIJAMAAQAAAAAHoAMAAAAAABEkBAAAAwkLBQkBDwkBGQAAAAegBAMAAAAADgMACAASAAAAAAAAAAgBAFAAAAAAAAAAAAAA
        AAAAAAAAAAAAAAAAAAAA6AMAAAAAAAABAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAMAAA5AAEA
        AAAAAAAAAAAAAAAAAADoAwAAAAAAAAEAAAABAAAA6AMAAAAAAAAQAwECBf////8PBnJlYWRlcgwAAC8AAgAAAAAAAAABAAAAAAAAAOsD
        AAAAAAAAAQAAAAEAAADrAwAAAAAAAAYGAQEBAXQMAABDAAMAAAAAAAAAAgAAAAAAAADuAwAAAAAAAAEAAAACAAAA7gMAAAAAAAAKBAHu
        B/////8PAQ8DAgIF/////w8Fb3RoZXINAAA4AAEAAAAAAAAABAAAAAAAAAD//////////wAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAMB
        AAEBAQEACAIAUAABAAAAAAAAAABAAAAAAAAABAAAAAgBAAAADAAAQAABAAAAMgCaAAAAAAAAAAAAAAAAAAALCpuV38ON5conmVgHCtYg
        zpHEHgMKBQoAAAAAAAwAAC8ABQAAAAAAAAAEAAAAAAAAAPEDAAAAAAAAAQAAAAEAAADxAwAAAAAAAAYGAgECASMMAABEAAYAAAAAAAAA
        BQAAAAAAAAD0AwAAAAAAAAEAAAACAAAA9AMAAAAAAAAKBAL0B/////8PARADAwIF/////w8GbWVtYmVyDAAAVQAIAAAAAAAAAAcAAAAA
        AAAA9wMAAAAAAAABAAAAAgAAAPcDAAAAAAAAGAMECgX/////Dw4kc2hhcmUvZ3JvdXAvdBMGAwEBDiRzaGFyZS9ncm91cC90DQAAOAAF
        AAAAAAAAAAkAAAAAAAAA//////////8AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAADAQABAQECAAgDAFAAAgAAAAAAAAAAQAAAAAAAAAkA
        AAAAAAAA/QMAAAAAAAABAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAMAABHAAoAAAAAAAAACQAA
        AAAAAAD9AwAAAAAAAAEAAAACAAAA/QMAAAAAAAAKBAP6B/////8PARMBIAMBIQACIgAEIQABdAAwLTAgDAAARgAMAAAAAAAAAAsAAAAA
        AAAAAAQAAAAAAAABAAAAAQAAAAAEAAAAAAAAHQEQAwEhAQIhAQQhAQF0ADUtMSAuLi4uLi4uLi4uDAAAUAANAAAAAAAAAAwAAAAAAAAA
        AwQAAAAAAAABAAAAAQAAAAMEAAAAAAAAJwEgAwEhAgIiAgQhAgF0ADAtMiAuLi4uLi4uLi4uLi4uLi4uLi4uLg0AAF8ACgAAAAAAAAAN
        AAAAAAAAAP////////////////////8AAAAAAAAAAAAAAAAAAAAAAwEAAQIBAQMBAy0JAQMtCQIDLQkAARUBAT0BAWUAARYBAT0BAWYA
        ARUBAT0BAWUIBABQAAMAAAAAAAAAAEAAAAAAAAANAAAAAAAAAAYEAAAAAAAAAQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA
        AAAAAAAAAAAAAAAAAAAADAAAOAAOAAAAAAAAAA0AAAAAAAAABgQAAAAAAAABAAAAAQAAAAYEAAAAAAAADwMCAgX/////DwVvdGhlcgwA
        ADAADwAAAAAAAAAOAAAAAAAAAAYEAAAAAAAAAQAAAAIAAAAGBAAAAAAAAAMKAgADCgICDAAARwARAAAAAAAAABAAAAAAAAAACQQAAAAA
        AAABAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEA
        AAACAAAACQQAAAAAAAAKBAKJCP////8PARMBIAMBIQMCIgMEIQMBdIExLTAgDQAATQAOAAAAAAAAABIAAAAAAAAA////////////////
        /////wAAAAAAAAAAAAAAAAAAAAADAQABAQECAwEBBQMBAQUDAgEFAwMEFQMEFgMEFQgFAFAABAAAAAAAAAAAQAAAAAAAABIAAAAAAAAA
        DAQAAAAAAAABAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAMAABGABMAAAAAAAAAEgAAAAAAAAAM
        BAAAAAAAAAEAAAABAAAADAQAAAAAAAAdARADASEEAiEEBCEEAXQAMS0xIC4uLi4uLi4uLi4MAABQABQAAAAAAAAAEwAAAAAAAAAPBAAA
        AAAAAAEAAAABAAAADwQAAAAAAAAnASADASEFAiIFBCEFAXQAMS0yIC4uLi4uLi4uLi4uLi4uLi4uLi4u
        """
}

private struct EverythingIsOwed: CheckpointSource {
    func snapshot(_ body: (Record) -> Void) {}
    func owes(from first: Position, through last: Position) -> Bool { true }
    func owedCount(in stretch: Stretch) -> Int { 1 }
    func needs(_ session: SessionID, _ delivery: Delivery) -> Bool { true }
    func strayPositions(in stretch: Stretch) -> Set<Position> { [] }
}

/// Changes what a checkpoint says of segments, and has it verify all the same.
enum Forgery {
    private static let payload = CheckpointChunk.headSize

    static func header(of name: String, _ disk: FaultDisk, isBelieved: Bool = true) throws -> CheckpointHeader
    {
        do { return try CheckpointHeader(decoding: chunk(of: name, disk).bytes) } catch DecodingError
            .invalidField where !isBelieved
        {
            return CheckpointHeader(
                position: .zero, clock: Instant(milliseconds: 0), boot: 0, nextSegment: 1, anchor: nil,
                segments: [])
        }
    }

    /// - Parameter body: gets the whole file.
    static func change(_ name: String, _ disk: inout FaultDisk, _ body: (inout [UInt8]) -> Void) throws {
        let (chunk, seed) = try chunk(of: name, disk)
        var bytes = disk.content(name)
        body(&bytes)
        bytes.put(Checksum.of(bytes, payload..<payload + chunk.count, seed: seed), at: 12)
        bytes.put(Checksum.of(bytes, 8..<payload, seed: seed), at: 4)
        disk.put(name, bytes)
    }

    private static func chunk(of name: String, _ disk: FaultDisk) throws -> (bytes: [UInt8], seed: UInt32) {
        guard case .checkpoint(let position) = StoreFile(name: name), let store = testStore else {
            throw DecodingError.invalidField
        }
        let seed = CheckpointChunk.seed(store, Position(position))
        let bytes = disk.content(name)
        let length = try CheckpointChunk.head(bytes, seed: seed).length
        return (Array(bytes[payload..<payload + length]), seed)
    }

    /// Where the fields of a row stand in the file, eight bytes each.
    static func places(ofRow row: Int, of count: Int) -> (
        segment: Int, end: Int, last: Int, first: Int, capacity: Int
    ) {
        let start = payload + 49 + 24 * row
        let more = payload + 49 + 24 * count + Uptime.size + 17 + 16 * row
        return (start, start + 8, start + 16, more, more + 8)
    }
}
