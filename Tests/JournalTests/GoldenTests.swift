import GatewayCore
import MQTT
import Testing

@testable import Journal

/// Format version 1, byte by byte: what is written today must be what was written, and must be readable for
/// ever. A change here is a change of the format: Format.md and the version move with it.
@Suite("Format version 1")
struct GoldenTests {
    static let message = Record.message(
        MessageRecord(
            publisher: SessionID(3), inboundID: 7, qos: .exactlyOnce,
            message: ApplicationMessage(topic: Array("a/b".utf8), payload: Array("hi".utf8)),
            expiresAt: Instant(milliseconds: 5000),
            targets: [
                .init(session: SessionID(4), qos: .atLeastOnce, retain: true, subscriptionIdentifiers: [300]),
                .init(
                    session: SessionID(5), qos: .exactlyOnce,
                    rename: TopicRename(dropping: 2, prepending: Array("x/".utf8))),
            ]))
    static let settled = Record.acknowledged(
        AcknowledgedRecord(
            session: SessionID(4), floor: Delivery(9), settledAbove: [Delivery(11), Delivery(14)]))

    static let messageHex =
        "012b0307882702040d01ac0205120202782f03612f62006869"
    static let batchHex =
        """
        54474254ed11ad5821000000e92e0d0707000000000000002900000000000000280000000000000040e2010000000000\
        03000000020001000068e5cf8b01000019012b0307882702040d01ac0205120202782f03612f6200686906020409020b\
        03
        """
    static let segmentHex =
        """
        545345471348713801000000000000000102030405060708090a0b0c0d0e0f1007000000000000000600000000000000\
        0020000000000000280000000000000078e001000000000003
        """
    static let formatHex =
        """
        5449444547415445bc5311f801000000000000000000000000000000001000000102030405060708090a0b0c0d0e0f10\
        0068e5cf8b01
        """
    static let checkpointHex =
        """
        5447434b73be6a2f49000000a015c41e01000000000000002a0000000000000040e20100000000000300000008000000\
        0000000001e8030000000000000068e5cf8b010000010000000600000000000000002000000000000028000000000000\
        005447434b939cd5391a00000082cb3f7f02000000010000000220060621010172000105220302070809230409030929\
        010e015447434b2922d15a080000001054cf3e030000000200000004
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
        (.returned(SessionID(4), [Delivery(9), Delivery(12)]), "0e04020903"),
        (
            .queue(
                QueueRecord(
                    session: SessionID(4), floor: Delivery(9),
                    entries: [
                        .init(
                            position: Position(41), qos: .atLeastOnce, isReceived: false,
                            origin: .init(group: SessionID(6), qos: .exactlyOnce))
                    ])),
            "23040901590629"
        ),
    ]

    /// A checkpoint that has an anchor, a segment's end and one Record of each kind that only checkpoints have.
    static let header = CheckpointHeader(
        position: Position(42), clock: Instant(milliseconds: 123_456), boot: 3, nextSegment: 8,
        anchor: WallAnchor(clock: Instant(milliseconds: 1000), wallMilliseconds: 1_700_000_000_000),
        ends: [SegmentEnd(segment: 6, offset: 8192, last: Position(40))])
    static let state: [Record] = [
        .counters(nextSession: 6),
        .retained(
            RetainedRecord(
                message: ApplicationMessage(topic: Array("r".utf8), payload: [1]), qos: .atLeastOnce,
                expiresAt: nil)),
        .inboundHeld(SessionID(3), [7, 8]),
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

    @Test("a batch")
    func batch() throws {
        let store = try #require(testStore)
        let written = BatchTests.batch([Self.message, Self.settled], BatchTests.stamp(store))
        #expect(Self.hex(written) == Self.batchHex)
        let bytes = Self.bytes(Self.batchHex, paddedTo: pageBytes)
        let header = try BatchHeader(decoding: bytes, at: 0, store: store, segment: 7)
        #expect(header.verifiesPayload(in: bytes, at: 0, store: store))
        var records: [Record] = []
        try header.records(in: bytes, at: 0) { record, _ in records.append(record) }
        #expect(records == [Self.message, Self.settled])
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
        #expect(try CheckpointHeader(decoding: Array(file[24..<start + 41])) == header)
        #expect(try CheckpointHeader(decoding: Array(file[24..<start])) == Self.header)
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
        disk.put(StoreFile.checkpoint(42).name, Self.bytes(Self.checkpointHex, paddedTo: 179))
        var records: [Record] = []
        let log = try Recovery.recover(&disk) { record, position in
            #expect(position == .zero)
            records.append(record)
        }
        #expect(records == Self.state)
        #expect(log.last == Position(42) && log.boot == 3 && log.nextSegment == 8)
        #expect(log.anchor == Self.header.anchor && log.clock == Self.header.clock)
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
