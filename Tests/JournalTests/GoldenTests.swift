import Foundation
import GatewayCore
import MQTT
import Testing

@testable import Journal

/// Format version 2.0, byte by byte: what is written today must be what was written, and must be readable for
/// ever. A change here is a change of the format: Format.md and the version move with it.
@Suite("Format version 2.0")
struct GoldenTests {
    static let message = Record.message(
        MessageRecord(
            publisher: SessionID(3), inboundID: 7, qos: .exactlyOnce,
            message: ApplicationMessage(topic: Array("a/b".utf8), payload: Array("hi".utf8)),
            expiresAt: Instant(milliseconds: 5000),
            targets: [
                .init(
                    session: SessionID(4), delivery: Delivery(15), qos: .atLeastOnce, retain: true,
                    subscriptionIdentifiers: [300]),
                .init(
                    session: SessionID(5), delivery: Delivery(300), qos: .exactlyOnce,
                    rename: TopicRename(dropping: 2, prepending: Array("x/".utf8))),
            ]))
    static let settled = Record.acknowledged(
        AcknowledgedRecord(
            session: SessionID(4), floor: Delivery(9), settledAbove: [Delivery(11), Delivery(14)]))

    static let messageHex =
        "012b0307882702042d0f01ac020532ac020202782f03612f62006869"
    static let batchHex =
        """
        5447425477d1365124000000395e12e407000000000000002900000000000000280000000000000040e20100000000\
        0003000000020001000068e5cf8b0100001c012b0307882702042d0f01ac020532ac020202782f03612f6200686906\
        020409020b03
        """
    static let segmentHex =
        """
        545345477b9a94ba02000000000000000102030405060708090a0b0c0d0e0f10070000000000000006000000000000\
        000020000000000000280000000000000078e001000000000003
        """
    static let mergedHex =
        """
        54534547fa424d8802000000000000000102030405060708090a0b0c0d0e0f10090000000000000000000000000000\
        0000000000000000001e0000000000000078e001000000000003000000000000000000000000000000000000000000\
        0000000000000200000028000000000000000050
        """
    static let recycledHex =
        """
        54534547de12ab5b02000000000000000102030405060708090a0b0c0d0e0f10090000000000000000000000000000\
        0000000000000000001e0000000000000078e001000000000003000000000000000000000000000000000000000000\
        00000000000001
        """
    static let formatHex =
        """
        5449444547415445b3384e1102000000000000000000000000000000001000000102030405060708090a0b0c0d0e0f\
        100068e5cf8b01
        """
    static let checkpointHex =
        """
        5447434bca5400478200000036bcbd3401000000000000002a0000000000000040e201000000000003000000080000\
        000000000001e8030000000000000068e5cf8b01000001000000060000000000000000200000000000002800000000\
        00000000000000000000000000000000000000000000000000000000000000000000000000000000000000001f0000\
        000000000000004000000000005447434bcc28c5b8210000009c4bf0ac020000000100000002200606210101720001\
        05220302070810240409000309290001000e01000000005447434bd11aaec208000000c71b82990300000002000000\
        04
        """

    static let footerHex =
        """
        54474654aebbdbff18000000f590eadf0700000000000000003000000000000029000000000000002d000000000000\
        008813000000000000ffffffffffffffff000000000000000000000000000000000201000104020401050301020a07\
        0f0015ac020016010415
        """

    /// What only shared subscriptions write.
    static let sharedRecords: [(record: Record, hex: String)] = [
        (
            .sessionOpened(
                SessionOpened(
                    session: SessionID(6),
                    owner: TopicFilter("$share/g/t").map { .group($0) } ?? .uplink(name: ""),
                    version: .v5_0, expirySeconds: .max, isPersistent: true, will: nil)),
            "03060a05ffffffff0f0a2473686172652f672f74"
        ),
        (
            .assigned(
                AssignedRecord(
                    group: SessionID(6), delivery: Delivery(300), member: SessionID(4), qos: .exactlyOnce)),
            "0d06ac020402"
        ),
        (
            .assigned(
                AssignedRecord(
                    group: SessionID(6), delivery: Delivery(300), member: SessionID(4), qos: .atLeastOnce,
                    number: Delivery(5),
                    source: .init(position: Position(77), qos: .exactlyOnce, bytes: 19))),
            "0d06ac02040d054d0213"
        ),
        (.returned(SessionID(4), [Delivery(9), Delivery(12)]), "0e04020903"),
        (
            .queue(
                QueueRecord(
                    session: SessionID(4), floor: Delivery(9),
                    entries: [
                        .init(
                            position: Position(41), qos: .atLeastOnce, isReceived: false, bytes: 300,
                            origin: .init(group: SessionID(6), qos: .exactlyOnce))
                    ],
                    pages: [
                        QueuePage(
                            stretch: Stretch(first: Position(42), last: Position(50)), first: Delivery(10),
                            span: 5, waitingCount: 4, waitingBytes: 99)
                    ],
                    tail: [.init(position: Position(51), qos: .exactlyOnce, isReceived: true, bytes: 0)],
                    strays: [
                        .init(
                            delivery: Delivery(12),
                            entry: .init(
                                position: Position(3), qos: .atLeastOnce, isReceived: false, bytes: 7,
                                isStray: true))
                    ], unsentFrom: Delivery(10))),
            "2404090201590629ac0201000501080463010e0900010c89d0ffffffffffffffff0107"
        ),
    ]

    /// Messages that were moved, and the queues of uplinks.
    static let newRecords: [(record: Record, hex: String)] = [
        (
            .message(
                MessageRecord(
                    qos: .atLeastOnce,
                    message: ApplicationMessage(topic: Array("a".utf8), payload: Array("hi".utf8)),
                    targets: [.init(session: SessionID(9), delivery: Delivery(2), qos: .atLeastOnce)],
                    received: .init(at: Instant(milliseconds: 300), by: Position(41)),
                    moved: .init(
                        from: SessionID(4), delivery: Delivery(15),
                        refusal: .init(reason: .notAuthorized, at: Instant(milliseconds: 400))))),
            "100fac02" + "29" + "040f" + "879003" + "1001092102" + "0161" + "00" + "6869"
        ),
        (
            .message(
                MessageRecord(
                    qos: .atLeastOnce,
                    message: ApplicationMessage(topic: Array("a".utf8), payload: Array("hi".utf8)),
                    targets: [.init(session: SessionID(4), delivery: Delivery(16), qos: .atLeastOnce)],
                    received: .init(at: Instant(milliseconds: 300)),
                    moved: .init(from: SessionID(9), delivery: Delivery(2)))),
            "1005ac02" + "0902" + "1001042110" + "0161" + "00" + "6869"
        ),
        (
            .sessionOpened(
                SessionOpened(
                    session: SessionID(9), owner: .deadLetters(uplink: "up"), version: .v5_0,
                    expirySeconds: .max, isPersistent: true, will: nil)),
            "03092205ffffffff0f027570"
        ),
        (
            .sessionOpened(
                SessionOpened(
                    session: SessionID(9), owner: .lane(uplink: "up", number: 3, label: "low"),
                    version: .v5_0, expirySeconds: .max, isPersistent: true, will: nil)),
            "03091205ffffffff0f02757003036c6f77"
        ),
    ]

    /// What 1.1 wrote.
    enum Old {
        static let segmentHex = """
            54534547bd4974ac01000100000000000102030405060708090a0b0c0d0e0f10070000000000000006000000000000\
            000020000000000000280000000000000078e001000000000003
            """
        static let formatHex = """
            5449444547415445f5a5ed1901000100000000000000000000000000001000000102030405060708090a0b0c0d0e0f\
            100068e5cf8b01
            """
    }

    /// A checkpoint that has an anchor, a segment's end and one Record of each kind that only checkpoints have.
    static let header = CheckpointHeader(
        position: Position(42), clock: Instant(milliseconds: 123_456), boot: 3, nextSegment: 8,
        anchor: WallAnchor(clock: Instant(milliseconds: 1000), wallMilliseconds: 1_700_000_000_000),
        segments: [
            SegmentRow(segment: 6, first: Position(31), last: Position(40), end: 8192, capacity: 4 << 20)
        ])
    static let state: [Record] = [
        .counters(nextSession: 6),
        .retained(
            RetainedRecord(
                message: ApplicationMessage(topic: Array("r".utf8), payload: [1]), qos: .atLeastOnce,
                expiresAt: nil)),
        .inboundHeld(SessionID(3), [HeldIdentifier(7), HeldIdentifier(8)]),
        .queue(
            QueueRecord(
                session: SessionID(4), floor: Delivery(9),
                entries: [
                    .init(position: Position(41), qos: .atLeastOnce, isReceived: false),
                    .init(position: nil, qos: .atLeastOnce, isReceived: false),
                    .init(position: Position(42), qos: .exactlyOnce, isReceived: true),
                ])),
    ]

    @Test("a Record")
    func record() throws {
        var bytes: [UInt8] = []
        RecordCodec.encode(Self.message, into: &bytes)
        #expect(Self.hex(bytes) == Self.messageHex)
        #expect(try RecordCodec.decode(Self.bytes(Self.messageHex)) == Self.message)
    }

    @Test("the Records of shared subscriptions", arguments: Self.sharedRecords)
    func sharedRecord(_ record: Record, hex: String) throws {
        var bytes: [UInt8] = []
        RecordCodec.encode(record, into: &bytes)
        #expect(Self.hex(bytes) == hex)
        #expect(try RecordCodec.decode(Self.bytes(hex)) == record)
    }

    @Test("the Records of moved messages, and of the queues of uplinks", arguments: Self.newRecords)
    func newRecord(_ record: Record, hex: String) throws {
        var bytes: [UInt8] = []
        RecordCodec.encode(record, into: &bytes)
        #expect(Self.hex(bytes) == hex)
        #expect(try RecordCodec.decode(Self.bytes(hex)) == record)
    }

    @Test("a message of type 16 that says nothing more, or a part of what is not there, is damage")
    func contradictions() {
        for flags in ["00", "02", "08", "0b", "10", "1f"] {
            #expect(throws: DecodingError.invalidField) {
                try RecordCodec.decode(Self.bytes("10" + flags + "01010101010101" + "1000" + "0161" + "00"))
            }
        }
    }

    @Test("a batch")
    func batch() throws {
        let store = try #require(testStore)
        let written = BatchTests.batch([Self.message, Self.settled], BatchTests.stamp(store))
        #expect(Self.hex(written) == Self.batchHex)
        let bytes = Self.bytes(Self.batchHex, paddedTo: pageBytes)
        let header = try BatchHeader(decoding: bytes, at: 0, offset: pageBytes, store: store, segment: 7)
        #expect(header.verifiesPayload(in: bytes, at: 0, store: store))
        var records: [Record] = []
        try header.records(in: bytes, at: 0) { record, _ in records.append(record) }
        #expect(records == [Self.message, Self.settled])
    }

    @Test("a footer, behind that batch and another")
    func footer() throws {
        let store = try #require(testStore)
        var builder = IndexBuilder(segment: 7, first: Position(41))
        let batch = BatchTests.batch([Self.message, Self.settled], BatchTests.stamp(store))
        var header = try BatchHeader(decoding: batch, at: 0, offset: pageBytes, store: store, segment: 7)
        builder.add(header, at: pageBytes)
        builder.add(Self.message, at: Position(41))
        builder.add(Self.settled, at: Position(42))
        // The second begins at 45: what had the positions 43 and 44 was elided.
        header.first = Position(45)
        header.recordCount = 1
        builder.add(header, at: 2 * pageBytes)
        builder.add(Samples.plain("a/b", to: 5, delivery: 301, payload: [1, 2]), at: Position(45))
        let written = Footer.encoded(builder.index, store: store)
        #expect(Self.hex(written) == Self.footerHex)
        let bytes = Self.bytes(Self.footerHex, paddedTo: pageBytes)
        let head = try Footer.head(bytes, at: 0, offset: 3 * pageBytes, store: store, segment: 7)
        #expect(try Footer.index(head, bytes, store: store) == builder.index)
        #expect(builder.index.place(of: Position(42)) == pageBytes..<2 * pageBytes)
    }

    @Test("the worked example of Format.md is that batch and that footer")
    func workedExample() throws {
        let page = URL(filePath: #filePath).deletingLastPathComponent()
            .appending(path: "../../Sources/Journal/Format.md").standardized
        let text = try String(contentsOf: page, encoding: .utf8)
        // What is behind the hexadecimal digits of a line, in its own column, says what they are.
        let examples = text.components(separatedBy: "```").enumerated().filter { $0.offset % 2 == 1 }.map {
            $0.element.split(separator: "\n").filter { !$0.hasPrefix("(") }
                .map { $0.prefix(46).filter(\.isHexDigit) }.joined()
        }
        let golden = [Self.batchHex, Self.footerHex].map { $0.filter(\.isHexDigit) }
        #expect(examples == golden)
    }

    @Test("a segment's header")
    func segment() throws {
        let header = SegmentHeader(
            store: try #require(testStore), segment: 7,
            predecessor: SegmentEnd(segment: 6, offset: 8192, last: Position(40)),
            clock: Instant(milliseconds: 123_000), boot: 3)
        #expect(Self.hex(header.encoded) == Self.segmentHex)
        let page = Self.bytes(Self.segmentHex, paddedTo: pageBytes)
        #expect(try SegmentHeader(decoding: page, segment: 7) == header)
    }

    @Test("a merged file's header, which says up to where it goes, and a recycled file's")
    func mergedSegment() throws {
        var header = SegmentHeader(
            store: try #require(testStore), segment: 9,
            predecessor: SegmentEnd(segment: 0, offset: 0, last: Position(30)),
            clock: Instant(milliseconds: 123_000), boot: 3)
        header.merged = .init(last: Position(40), end: 20_480)
        #expect(Self.hex(header.encoded) == Self.mergedHex)
        let page = Self.bytes(Self.mergedHex, paddedTo: pageBytes)
        #expect(try SegmentHeader(decoding: page, segment: 9) == header)
        header.merged = nil
        header.isRecycled = true
        #expect(Self.hex(header.encoded) == Self.recycledHex)
    }

    @Test(
        "the Records about time off",
        arguments: [
            (
                Record.wasOff(
                    OffTime(
                        after: Position(300), since: Instant(milliseconds: 5000), milliseconds: 3_600_000)),
                "0fac02882780dddb01"
            ),
            (
                .retained(
                    RetainedRecord(
                        message: ApplicationMessage(topic: Array("r".utf8), payload: [1]), qos: .atLeastOnce,
                        expiresAt: Instant(milliseconds: 5000), storedAt: Position(41))),
                "21198827290172" + "0001"
            ),
        ])
    func timeOff(_ record: Record, hex: String) throws {
        var bytes: [UInt8] = []
        RecordCodec.encode(record, into: &bytes)
        #expect(Self.hex(bytes) == hex)
        #expect(try RecordCodec.decode(Self.bytes(hex)) == record)
    }

    @Test("the device profile of a Session, which a version that does not know it skips")
    func profiled() throws {
        let record = Record.profiled(SessionID(4), "mains")
        var bytes: [UInt8] = []
        RecordCodec.encode(record, into: &bytes)
        #expect(Self.hex(bytes) == "a204056d61696e73")
        #expect(try RecordCodec.decode(bytes) == record)
        bytes[0] = 0xBF
        #expect(try RecordCodec.decode(bytes) == nil)
    }

    @Test("uptimes and unproven starts stand where earlier versions wrote nothing")
    func uptime() throws {
        let store = try #require(testStore)
        let boot = try #require(MachineBoot(text: "01020304-0506-0708-090a-0b0c0d0e0f10".utf8))
        // One second before either header was written.
        let uptime = Uptime(boot: boot, milliseconds: 0x1234 - 1000, clock: Instant(milliseconds: 122_456))
        let words = "0807060504030201" + "100f0e0d0c0b0a09" + "3412000000000000"
        let segment = SegmentHeader(
            store: store, segment: 7,
            predecessor: SegmentEnd(segment: 6, offset: 8192, last: Position(40)),
            clock: Instant(milliseconds: 123_456), boot: 3, uptime: uptime)
        let page = segment.encoded
        #expect(Self.bytes(words) == Array(page[76..<100]))
        #expect(try SegmentHeader(decoding: page, segment: 7) == segment)

        var header = Self.header
        header.uptime = uptime.at(header.clock)
        header.unproven = UnprovenStart(after: Position(40), since: Instant(milliseconds: 5000))
        let file = CheckpointBuilder(header, store: store).sealed()
        // A chunk's head, then what the header had before.
        let start = 24 + 73
        #expect(
            Self.bytes(words + "01" + "2800000000000000" + "8813000000000000")
                == Array(file[start..<start + 41]))
        #expect(try CheckpointHeader(decoding: Array(file[24..<start + 57])) == header)
        // Earlier versions had no places of segments behind the uptime, or nothing of either.
        header.segments[0].first = nil
        header.segments[0].capacity = header.segments[0].end
        #expect(try CheckpointHeader(decoding: Array(file[24..<start + 41])) == header)
        header.uptime = nil
        header.unproven = nil
        #expect(try CheckpointHeader(decoding: Array(file[24..<start])) == header)
    }

    @Test("FORMAT")
    func format() throws {
        let format = StoreFormat(store: try #require(testStore), createdWallMilliseconds: 1_700_000_000_000)
        #expect(Self.hex(format.encoded) == Self.formatHex)
        #expect(try StoreFormat(decoding: Self.bytes(Self.formatHex, paddedTo: 64)) == format)
    }

    @Test("a checkpoint")
    func checkpoint() throws {
        let store = try #require(testStore)
        var builder = CheckpointBuilder(Self.header, store: store)
        for record in Self.state { builder.add(record) }
        #expect(Self.hex(builder.sealed()) == Self.checkpointHex)
        var disk = FaultDisk(formatted: store)
        disk.put(StoreFile.checkpoint(42).name, Self.bytes(Self.checkpointHex, paddedTo: 243))
        var records: [Record] = []
        let log = try Recovery.recover(&disk) { record, position in
            #expect(position == .zero)
            records.append(record)
        }
        #expect(records == Self.state)
        #expect(log.last == Position(42) && log.boot == 3 && log.nextSegment == 8)
        #expect(log.anchor == Self.header.anchor && log.clock == Self.header.clock)
    }

    @Test("what 1.1 wrote is refused as a whole, by FORMAT or, where that is damaged, by a segment's header")
    func old() throws {
        let format = Self.bytes(Old.formatHex, paddedTo: 64)
        let page = Self.bytes(Old.segmentHex, paddedTo: pageBytes)
        let major: UInt32 = 1 << 16
        #expect(throws: DecodingError.unknownFeatures(major)) { try StoreFormat(decoding: format) }
        #expect(throws: DecodingError.unknownFeatures(major)) {
            try SegmentHeader(decoding: page, segment: 7)
        }
        let name = StoreFile.segment(7).name
        for (file, bytes) in [("FORMAT", format), (name, [])] {
            var disk = FaultDisk(formatted: try #require(testStore))
            disk.put("FORMAT", bytes)
            disk.put(name, page)
            #expect(throws: RecoveryError.unknownFeatures(file: file, bits: major)) {
                try Recovery.recover(&disk) { _, _ in }
            }
        }
    }

    /// Without the zeros at the end.
    static func hex(_ bytes: [UInt8]) -> String {
        let kept = bytes.lastIndex { $0 != 0 }.map { $0 + 1 } ?? 0
        return bytes[..<kept].map { byte in
            let digits = String(byte, radix: 16)
            return digits.count == 1 ? "0" + digits : digits
        }.joined()
    }

    static func bytes(_ hex: String, paddedTo count: Int = 0) -> [UInt8] {
        var bytes: [UInt8] = []
        var digits = Array(hex.utf8)[...]
        while let high = digits.popFirst(), let low = digits.popFirst() {
            bytes.append(value(high) << 4 | value(low))
        }
        return bytes + Array(repeating: 0, count: max(count - bytes.count, 0))
    }

    private static func value(_ digit: UInt8) -> UInt8 {
        digit < UInt8(ascii: "a") ? digit - UInt8(ascii: "0") : digit - UInt8(ascii: "a") + 10
    }
}
