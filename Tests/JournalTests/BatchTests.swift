import GatewayCore
import MQTT
import Testing

@testable import Journal

let testStore = StoreID(Array(1...16))
let otherStore = StoreID(Array(2...17))

@Suite("Batches")
struct BatchTests {
    static func stamp(
        _ store: StoreID, segment: UInt64 = 7, offset: Int = pageBytes, clean: Bool = false
    ) -> BatchStamp {
        BatchStamp(
            store: store, segment: segment, offset: offset, first: Position(41), durableBefore: Position(40),
            clock: Instant(milliseconds: 123_456), boot: 3,
            wall: WallReading(milliseconds: 1_700_000_000_000, isTrusted: true), isCleanShutdown: clean)
    }

    static func batch(_ records: [Record], _ stamp: BatchStamp) -> [UInt8] {
        var builder = BatchBuilder()
        for record in records {
            let isIn = builder.add(record, limit: .max)
            #expect(isIn)
        }
        return builder.sealed(stamp).bytes
    }

    @Test("header and Records come back, whole pages are written")
    func roundTrip() throws {
        let store = try #require(testStore)
        var dice = Dice(11)
        for count in [0, 1, 5, 400] {
            let records = (0..<count).map { _ in Samples.any(&dice) }
            let bytes = Self.batch(records, Self.stamp(store, clean: count == 0))
            #expect(bytes.count % pageBytes == 0)
            let header = try BatchHeader(decoding: bytes, at: 0, offset: pageBytes, store: store, segment: 7)
            #expect(header.totalLength == bytes.count)
            #expect(header.first == Position(41) && header.durableBefore == Position(40))
            #expect(header.last == Position(40 + UInt64(count)))
            #expect(header.clock == Instant(milliseconds: 123_456) && header.boot == 3)
            #expect(header.wall == WallReading(milliseconds: 1_700_000_000_000, isTrusted: true))
            #expect(header.isCleanShutdown == (count == 0))
            #expect(header.verifiesPayload(in: bytes, at: 0, store: store))
            var back: [Record] = []
            try header.records(in: bytes, at: 0) { record, position in
                #expect(position == Position(41 + UInt64(back.count)))
                back.append(record)
            }
            #expect(back == records)
            for (index, record) in records.enumerated() {
                #expect(try header.record(at: Position(41 + UInt64(index)), in: bytes, at: 0) == record)
            }
            #expect(try header.record(at: Position(41 + UInt64(count)), in: bytes, at: 0) == nil)
        }
    }

    @Test("another segment's or another store's batch never verifies")
    func staleContent() throws {
        let store = try #require(testStore)
        let foreign = try #require(otherStore)
        let bytes = Self.batch([Samples.plain("t")], Self.stamp(store))
        for (id, segment) in [(store, UInt64(8)), (store, 6), (foreign, 7)] {
            #expect(throws: DecodingError.wrongChecksum) {
                try BatchHeader(decoding: bytes, at: 0, offset: pageBytes, store: id, segment: segment)
            }
        }
        let header = try BatchHeader(decoding: bytes, at: 0, offset: pageBytes, store: store, segment: 7)
        #expect(!header.verifiesPayload(in: bytes, at: 0, store: foreign))
    }

    @Test("a batch verifies where it was written and nowhere else, and so does its payload")
    func otherPlace() throws {
        let store = try #require(testStore)
        let written = 5 * pageBytes
        // The same Records under the same header; only where they stand differs.
        let bytes = Self.batch([Samples.plain("t")], Self.stamp(store, offset: written))
        let own = try BatchHeader(decoding: bytes, at: 0, offset: written, store: store, segment: 7)
        let places = Array(0..<200) + [1 << 16, 1 << 20, Int(UInt32.max)]
        for offset in places.map({ $0 * pageBytes }) where offset != written {
            #expect(throws: DecodingError.wrongChecksum) {
                try BatchHeader(decoding: bytes, at: 0, offset: offset, store: store, segment: 7)
            }
            let other = Self.batch([Samples.plain("t")], Self.stamp(store, offset: offset))
            let header = try BatchHeader(decoding: other, at: 0, offset: offset, store: store, segment: 7)
            #expect(header.verifiesPayload(in: other, at: 0, store: store))
            #expect(header.payloadChecksum != own.payloadChecksum)
        }
    }

    @Test("any flipped bit of header or payload is noticed; zeros are no batch")
    func flips() throws {
        let store = try #require(testStore)
        let bytes = Self.batch([Samples.plain("topic/1", payload: [1, 2, 3])], Self.stamp(store))
        let header = try BatchHeader(decoding: bytes, at: 0, offset: pageBytes, store: store, segment: 7)
        for bit in 0..<(BatchHeader.size + Int(header.payloadLength)) * 8 {
            var damaged = bytes
            damaged[bit / 8] ^= UInt8(1 << (bit % 8))
            if bit / 8 < BatchHeader.size {
                #expect(throws: DecodingError.self) {
                    try BatchHeader(decoding: damaged, at: 0, offset: pageBytes, store: store, segment: 7)
                }
            } else {
                #expect(!header.verifiesPayload(in: damaged, at: 0, store: store))
            }
        }
        #expect(throws: DecodingError.wrongMagic) {
            try BatchHeader(
                decoding: Array(repeating: 0, count: 4096), at: 0, offset: pageBytes, store: store, segment: 7
            )
        }
    }

    @Test("a Record that would break the limit stays out and leaves the batch as it was")
    func limit() throws {
        let store = try #require(testStore)
        var builder = BatchBuilder()
        let small = Samples.plain("s")
        let smallIsIn = builder.add(small, limit: 4096)
        let largeIsIn = builder.add(
            Samples.plain("l", payload: Array(repeating: 9, count: 5000)), limit: 4096)
        #expect(smallIsIn && !largeIsIn)
        #expect(builder.recordCount == 1 && builder.totalLength == 4096)
        let bytes = builder.sealed(Self.stamp(store)).bytes
        let header = try BatchHeader(decoding: bytes, at: 0, offset: pageBytes, store: store, segment: 7)
        #expect(try header.record(at: Position(41), in: bytes, at: 0) == small)
    }

    @Test("of a retained message's values in one batch only the last is written, and what others are owed")
    func superseded() throws {
        let store = try #require(testStore)
        func value(_ topic: String, _ payload: UInt8, _ change: (inout MessageRecord) -> Void = { _ in })
            -> Record
        {
            var record = MessageRecord(
                qos: .atLeastOnce, retained: .store,
                message: ApplicationMessage(
                    topic: Array(topic.utf8), payload: Array(repeating: payload, count: 500)))
            change(&record)
            return .message(record)
        }
        let owed = value("a", 3) { $0.targets = [.init(session: SessionID(1), qos: .atLeastOnce)] }
        let records = [
            value("a", 1), value("b", 1), owed, value("a", 4), .inboundVoided(SessionID(1)), value("b", 2),
            value("c", 1) { $0.inboundID = 7 }, value("c", 2) { $0.willOf = SessionID(2) },
            value("a", 5) { $0.retained = .clear }, value("c", 3), value("d", 1) { $0.retained = .none },
            value("d", 2),
        ]
        let left: Set = [2, 4, 5, 6, 7, 8, 9, 10, 11]
        var builder = BatchBuilder()
        for record in records {
            let isIn = builder.add(record, limit: .max)
            #expect(isIn)
        }
        let length = builder.totalLength
        let bytes = builder.sealed(Self.stamp(store)).bytes
        #expect(bytes.count == length && length == 2 * pageBytes)
        let header = try BatchHeader(decoding: bytes, at: 0, offset: pageBytes, store: store, segment: 7)
        var found: [UInt64: Record] = [:]
        try header.records(in: bytes, at: 0) { found[$1.number] = $0 }
        #expect(Set(found.keys) == Set(left.map { UInt64($0) + 41 }))
        for (position, record) in found { #expect(record == records[Int(position) - 41]) }
        #expect(header.last == Position(40 + UInt64(records.count)))
        #expect(try header.record(at: Position(41), in: bytes, at: 0) == nil)
        #expect(try header.record(at: Position(43), in: bytes, at: 0) == owed)
    }

    @Test("segment header and FORMAT come back, and any flipped bit in them is noticed")
    func headers() throws {
        let store = try #require(testStore)
        let header = SegmentHeader(
            store: store, segment: 9, predecessor: SegmentEnd(segment: 8, offset: 8192, last: Position(77)),
            clock: Instant(milliseconds: 5), boot: 2)
        let page = header.encoded
        #expect(page.count == pageBytes)
        #expect(try SegmentHeader(decoding: page, segment: 9) == header)
        #expect(throws: DecodingError.wrongChecksum) { try SegmentHeader(decoding: page, segment: 8) }
        let format = StoreFormat(store: store, createdWallMilliseconds: 12)
        #expect(try StoreFormat(decoding: format.encoded) == format)
        for bit in 0..<64 * 8 {
            var damaged = page
            damaged[bit / 8 * 3] ^= UInt8(1 << (bit % 8))
            #expect(throws: DecodingError.self) { try SegmentHeader(decoding: damaged, segment: 9) }
            damaged = format.encoded
            damaged[bit / 8] ^= UInt8(1 << (bit % 8))
            #expect(throws: DecodingError.self) { try StoreFormat(decoding: damaged) }
        }
    }

    @Test("a store with a feature we do not know is refused by name of the feature")
    func features() throws {
        var format = StoreFormat(store: try #require(testStore), createdWallMilliseconds: 0)
        format.incompatible = 4
        #expect(throws: DecodingError.unknownFeatures(4)) { try StoreFormat(decoding: format.encoded) }
        format.incompatible = 0
        format.compatible = 0xFF
        #expect(try StoreFormat(decoding: format.encoded) == format)
    }
}

extension BatchTests {
    /// A batch of any payload, with both checksums right: what only another version would write.
    static func raw(
        _ payload: [UInt8], count: UInt16, store: StoreID, segment: UInt64, offset: Int = pageBytes
    ) -> [UInt8] {
        let seed = Checksum.seed(store, segment, offset: offset)
        var bytes: [UInt8] = []
        bytes.append(fixed: UInt32(0x5442_4754))
        bytes.append(fixed: UInt32(0))
        bytes.append(fixed: UInt32(payload.count))
        bytes.append(fixed: Checksum.of(payload, 0..<payload.count, seed: seed))
        for field in [segment, 1, 0, 0] { bytes.append(fixed: field) }
        bytes.append(fixed: UInt32(1))
        bytes.append(fixed: count)
        bytes.append(fixed: UInt16(0))
        bytes.append(fixed: Int64(0))
        bytes.put(Checksum.of(bytes, 8..<64, seed: seed), at: 4)
        bytes += payload
        bytes.pad(to: pageBytes)
        return bytes
    }
}
