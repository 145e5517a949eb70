import GatewayCore
import Testing

@testable import Journal

/// The index of one segment as bytes. What uses it is in `IndexTests`.
@Suite("Footers")
struct FooterTests {
    static func builder(_ records: [Record], firstPosition: UInt64 = 41) throws -> IndexBuilder {
        let store = try #require(testStore)
        var builder = IndexBuilder(segment: 7, first: Position(firstPosition))
        var position = firstPosition
        var offset = pageBytes
        for start in stride(from: 0, to: records.count, by: 3) {
            let part = Array(records[start..<min(start + 3, records.count)])
            var stamp = BatchTests.stamp(store)
            stamp.first = Position(position)
            stamp.offset = offset
            let bytes = BatchTests.batch(part, stamp)
            let header = try BatchHeader(decoding: bytes, at: 0, offset: offset, store: store, segment: 7)
            builder.add(header, at: offset)
            for record in part {
                builder.add(record, at: Position(position))
                position += 1
            }
            offset += bytes.count
        }
        return builder
    }

    static func decode(_ bytes: [UInt8], end: Int, segment: UInt64 = 7) throws -> SegmentIndex {
        let store = try #require(testStore)
        let head = try Footer.head(bytes, at: 0, offset: end, store: store, segment: segment)
        return try Footer.index(head, bytes, store: store)
    }

    @Test("an index comes back as it went, in whole pages")
    func roundTrip() throws {
        let store = try #require(testStore)
        var dice = Dice(31)
        for count in [1, 2, 10, 300] {
            let records = (0..<count).map { _ in Samples.record(5, &dice) }
            let index = try Self.builder(records).index
            let bytes = Footer.encoded(index, store: store)
            #expect(bytes.count % pageBytes == 0)
            #expect(try Self.decode(bytes, end: index.end) == index)
            #expect(index.stretch == Stretch(first: Position(41), last: Position(40 + UInt64(count))))
        }
    }

    @Test("each Session gets its deliveries with position, QoS and size, and nobody else's")
    func postings() throws {
        var records: [Record] = []
        for n in 0..<50 as Range<UInt64> {
            records.append(
                Samples.plain(
                    "t", to: n % 3, delivery: n / 3 + 7, payload: Array(repeating: 0, count: Int(n))))
        }
        let index = try Self.builder(records).index
        #expect(index.sessions == [SessionID(0), SessionID(1), SessionID(2)])
        for session in 0..<3 as Range<UInt64> {
            let expected = (0..<50 as Range<UInt64>).filter { $0 % 3 == session }.map {
                Posting(
                    delivery: Delivery($0 / 3 + 7), position: Position($0 + 41), qos: .atLeastOnce,
                    bytes: UInt32($0 + 1))
            }
            #expect(index.postings(of: SessionID(session), in: index.stretch) == expected)
            let part = Stretch(first: Position(50), last: Position(60))
            #expect(
                index.postings(of: SessionID(session), in: part)
                    == expected.filter { part.contains($0.position) })
        }
        #expect(index.postings(of: SessionID(3), in: index.stretch) == [])
    }

    @Test("a queue of which a message has no number is in no index")
    func withoutNumbers() throws {
        let index = try Self.builder([
            Samples.plain("a", to: 1, delivery: 1), Samples.plain("b", to: 2, delivery: 1),
            Samples.plain("c", to: 2),
        ]).index
        #expect(index.sessions == [SessionID(1)])
    }

    @Test("expiry: the earliest there is, and the latest unless a message never expires")
    func expiry() throws {
        func message(_ moment: UInt64?) -> Record {
            guard case .message(var record) = Samples.plain("t", delivery: 1) else {
                return .counters(nextSession: 1)
            }
            record.expiresAt = moment.map { Instant(milliseconds: $0) }
            return .message(record)
        }
        let all = try Self.builder([message(50), message(20), message(90)]).index.expiry
        #expect(all == ExpirySpan(earliest: Instant(milliseconds: 20), latest: Instant(milliseconds: 90)))
        let some = try Self.builder([message(50), message(nil)]).index.expiry
        #expect(some == ExpirySpan(earliest: Instant(milliseconds: 50), latest: nil))
    }

    @Test("any flipped bit, another segment's footer and one at another place are noticed")
    func flips() throws {
        let store = try #require(testStore)
        let index = try Self.builder((0..<6).map { Samples.plain("t", to: $0, delivery: $0) }).index
        let bytes = Footer.encoded(index, store: store)
        let head = try Footer.head(bytes, at: 0, offset: index.end, store: store, segment: 7)
        for bit in 0..<(Footer.headSize + head.bodyLength) * 8 {
            var damaged = bytes
            damaged[bit / 8] ^= UInt8(1 << (bit % 8))
            #expect(throws: DecodingError.self) { try Self.decode(damaged, end: index.end) }
        }
        #expect(throws: DecodingError.wrongChecksum) { try Self.decode(bytes, end: index.end, segment: 8) }
        for place in 0..<200 where place * pageBytes != index.end {
            #expect(throws: DecodingError.wrongChecksum) { try Self.decode(bytes, end: place * pageBytes) }
        }
        for count in stride(from: 0, to: Footer.headSize + head.bodyLength, by: 1) {
            #expect(throws: DecodingError.truncated) {
                try Self.decode(Array(bytes.prefix(count)), end: index.end)
            }
        }
    }

    @Test(
        "a body of any bytes with the right checksum never traps, and no count in it is trusted with memory")
    func noise() throws {
        let store = try #require(testStore)
        var dice = Dice(77)
        let index = try Self.builder((0..<6).map { Samples.plain("t", to: $0, delivery: $0) }).index
        for _ in 0..<5_000 {
            var bytes = Footer.encoded(index, store: store)
            let head = try Footer.head(bytes, at: 0, offset: index.end, store: store, segment: 7)
            for _ in 0..<1 + dice.below(4) {
                bytes[Footer.headSize + dice.below(head.bodyLength)] = UInt8(truncatingIfNeeded: dice.next())
            }
            let seed = Checksum.seed(store, 7, offset: index.end)
            let body = Footer.headSize..<Footer.headSize + head.bodyLength
            bytes.put(Checksum.of(bytes, body, seed: seed), at: 12)
            bytes.put(Checksum.of(bytes, 8..<Footer.headSize, seed: seed), at: 4)
            do {
                let found = try Self.decode(bytes, end: index.end)
                for session in found.sessions { _ = found.postings(of: session, in: found.stretch) }
                _ = found.place(of: Position(44))
            } catch is DecodingError {
                continue
            }
        }
    }
}
