import CChecksum
import GatewayCore
import MQTT
import Testing

@testable import Journal

@Suite("CRC-32C")
struct ChecksumTests {
    /// From RFC 3720, B.4, and the usual check value.
    static let vectors: [([UInt8], UInt32)] = [
        ([], 0),
        (Array("123456789".utf8), 0xE306_9283),
        (Array(repeating: 0, count: 32), 0x8A91_36AA),
        (Array(repeating: 0xFF, count: 32), 0x62A8_AB43),
        (Array(0..<32), 0x46DD_794E),
        (Array((0..<32).reversed()), 0x113F_DB5C),
    ]

    @Test("known values, by instruction and by tables", arguments: vectors)
    func known(bytes: [UInt8], expected: UInt32) {
        #expect(tidegate_crc32c(0, bytes, bytes.count) == expected)
        #expect(tidegate_crc32c_tables(0, bytes, bytes.count) == expected)
    }

    @Test("instruction and tables agree on any length, alignment and seed, whole or in parts")
    func agree() {
        var dice = Dice(1)
        for _ in 0..<500 {
            let bytes = dice.bytes(upTo: 100)
            let start = dice.below(bytes.count + 1)
            let seed = UInt32(truncatingIfNeeded: dice.next())
            bytes.withUnsafeBytes { all in
                let part = UnsafeRawBufferPointer(rebasing: all[start...])
                #expect(
                    tidegate_crc32c(seed, part.baseAddress, part.count)
                        == tidegate_crc32c_tables(seed, part.baseAddress, part.count))
                let first = tidegate_crc32c(seed, all.baseAddress, start)
                #expect(
                    tidegate_crc32c(first, part.baseAddress, part.count)
                        == tidegate_crc32c(seed, all.baseAddress, all.count))
            }
        }
    }
}

@Suite("Records as bytes")
struct RecordCodecTests {
    @Test("every case comes back as it went", arguments: 0..<Samples.caseCount)
    func roundTrip(which: Int) throws {
        var dice = Dice(UInt64(which) + 100)
        for _ in 0..<200 {
            let record = Samples.record(which, &dice)
            var bytes: [UInt8] = []
            RecordCodec.encode(record, into: &bytes)
            #expect(try RecordCodec.decode(bytes) == record)
        }
    }

    @Test("no prefix of a Record but one that only shortens its payload decodes, and none traps")
    func truncation() {
        var dice = Dice(7)
        for which in 0..<Samples.caseCount {
            let record = Samples.record(which, &dice)
            var bytes: [UInt8] = []
            RecordCodec.encode(record, into: &bytes)
            for count in 0..<bytes.count {
                do {
                    #expect(try RecordCodec.decode(Array(bytes.prefix(count))) != record)
                } catch {
                    #expect(error != .unknownRecordType(bytes[0]))
                }
            }
        }
    }

    @Test("random and flipped bytes never trap")
    func noise() {
        var dice = Dice(8)
        for round in 0..<20_000 {
            var bytes = dice.bytes(upTo: 60)
            if !bytes.isEmpty { bytes[0] = UInt8(round % 41) }
            do { _ = try RecordCodec.decode(bytes) } catch { continue }
        }
        for round in 0..<5_000 {
            var bytes: [UInt8] = []
            RecordCodec.encode(Samples.record(round % Samples.caseCount, &dice), into: &bytes)
            bytes[dice.below(bytes.count)] ^= UInt8(1 << dice.below(8))
            do { _ = try RecordCodec.decode(bytes) } catch { continue }
        }
    }

    @Test("a count or length beyond what is there is an error before it is memory")
    func lengthsAreNotTrusted() {
        // .inboundHeld of 2^62 identifiers, .unsubscribed with a filter of 2^40 bytes.
        let huge: [UInt8] = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x40]
        #expect(throws: DecodingError.truncated) { try RecordCodec.decode([34, 1] + huge) }
        #expect(throws: DecodingError.truncated) {
            try RecordCodec.decode([7, 1, 1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20, 0x61])
        }
        #expect(throws: DecodingError.overlongInteger) {
            try RecordCodec.decode([9] + Array(repeating: 0xFF, count: 12))
        }
    }

    @Test("unknown types: with bit 7 they are passed over, without it they are refused")
    func unknownTypes() throws {
        #expect(try RecordCodec.decode([UInt8(0x80 | 99), 1, 2, 3]) == nil)
        #expect(throws: DecodingError.unknownRecordType(99)) { try RecordCodec.decode([99, 1, 2, 3]) }
        #expect(throws: DecodingError.unknownRecordType(0)) { try RecordCodec.decode([0, 0, 0]) }
    }

    @Test("what a rule forbids is refused: Packet Identifier 0, a bad Topic Filter, QoS 3, bytes left over")
    func rules() {
        #expect(throws: DecodingError.invalidField) { try RecordCodec.decode([8, 1, 0]) }
        #expect(throws: DecodingError.invalidField) { try RecordCodec.decode([7, 1, 1, 2, 0x23, 0x61]) }
        #expect(throws: DecodingError.invalidField) { try RecordCodec.decode([1, 0x30, 0, 0, 0]) }
        #expect(throws: DecodingError.trailingBytes) { try RecordCodec.decode([9, 1, 1]) }
    }

    /// One number at or above 2^62 each, where counting on from it would trap or never end.
    static let uncountable: [Record] = [
        .acknowledged(AcknowledgedRecord(session: SessionID(1), floor: Delivery(.max), settledAbove: [])),
        .acknowledged(
            AcknowledgedRecord(
                session: SessionID(1), floor: Delivery(1),
                settledAbove: [Delivery(3), Delivery(countableLimit)])),
        .dropped(SessionID(1), [Delivery(.max)], .tooLarge),
        .outboundReceived(SessionID(1), Delivery(.max)),
        .queue(QueueRecord(session: SessionID(1), floor: Delivery(.max), entries: [])),
        .queue(
            QueueRecord(
                session: SessionID(1), floor: Delivery(1),
                entries: [
                    .init(position: Position(9), qos: .atLeastOnce, isReceived: false),
                    .init(position: Position(countableLimit), qos: .atLeastOnce, isReceived: false),
                ])),
        .queue(
            QueueRecord(
                session: SessionID(1), floor: Delivery(1), entries: [],
                pages: [
                    QueuePage(
                        stretch: Stretch(first: Position(1), last: Position(2)), first: Delivery(1),
                        span: countableLimit - 1, waitingCount: 0, waitingBytes: 0)
                ])),
        .queue(
            QueueRecord(
                session: SessionID(1), floor: Delivery(1), entries: [],
                pages: [
                    QueuePage(
                        stretch: Stretch(first: Position(1), last: Position(countableLimit)),
                        first: Delivery(1),
                        span: 1, waitingCount: 0, waitingBytes: 0)
                ])),
        .queue(
            QueueRecord(
                session: SessionID(1), floor: Delivery(countableLimit - 1), entries: [],
                tail: [.init(position: nil, qos: .atLeastOnce, isReceived: false)])),
        .queue(
            QueueRecord(
                session: SessionID(1), floor: Delivery(1), entries: [],
                strays: [
                    .init(
                        delivery: Delivery(.max),
                        entry: .init(position: nil, qos: .atLeastOnce, isReceived: false))
                ])),
        .counters(nextSession: .max),
        .inboundVoided(SessionID(countableLimit)),
    ]

    @Test("a number too large to count on from is refused, however it verifies", arguments: uncountable)
    func numbersAreBounded(record: Record) {
        var bytes: [UInt8] = []
        RecordCodec.encode(record, into: &bytes)
        #expect(throws: DecodingError.invalidField) { try RecordCodec.decode(bytes) }
    }

    @Test("a queue's page that overlaps the one before, or waits for more than it spans, is refused")
    func pagesAreInOrder() {
        let first = QueuePage(
            stretch: Stretch(first: Position(1), last: Position(2)), first: Delivery(1), span: 5,
            waitingCount: 2, waitingBytes: 9)
        var second = first
        second.first = Delivery(5)
        var third = first
        third.waitingCount = 6
        for pages in [[first, second], [third]] {
            var bytes: [UInt8] = []
            let queue = QueueRecord(
                session: SessionID(1), floor: Delivery(1), entries: [], pages: pages)
            RecordCodec.encode(.queue(queue), into: &bytes)
            #expect(throws: DecodingError.invalidField) { try RecordCodec.decode(bytes) }
        }
    }

    @Test("a queue's positions may fall back to zero, where only PUBREL is owed")
    func positionsMayFall() throws {
        let record = Record.queue(
            QueueRecord(
                session: SessionID(1), floor: Delivery(countableLimit - 1),
                entries: [
                    .init(position: Position(countableLimit - 1), qos: .exactlyOnce, isReceived: false),
                    .init(position: .zero, qos: .exactlyOnce, isReceived: true),
                    .init(position: nil, qos: .exactlyOnce, isReceived: false),
                    .init(position: Position(7), qos: .exactlyOnce, isReceived: false),
                ]))
        var bytes: [UInt8] = []
        RecordCodec.encode(record, into: &bytes)
        #expect(try RecordCodec.decode(bytes) == record)
    }
}
