import GatewayCore
import MQTT

extension RecordCodec {
    /// Decodes the framed Record at the reader's place; nil for one of an unknown type that may be ignored.
    ///
    /// - Parameter bytes: what `reader` reads.
    /// - Complexity: O(bytes of the Record)
    static func nextRecord(in bytes: [UInt8], _ reader: inout ByteReader) throws(DecodingError) -> Record? {
        let frame = try reader.lengthPrefixed()
        var body = ByteReader(bytes, frame.startIndex..<frame.endIndex)
        return try decode(&body)
    }

    /// Decodes type and body from all of `bytes`; nil for an unknown type that may be ignored.
    ///
    /// - Complexity: O(bytes)
    package static func decode(_ bytes: [UInt8]) throws(DecodingError) -> Record? {
        var reader = ByteReader(bytes)
        return try decode(&reader)
    }

    private static func decode(_ reader: inout ByteReader) throws(DecodingError) -> Record? {
        let type = try reader.byte()
        guard let kind = Kind(rawValue: type) else {
            guard type & ignorableBit != 0 else { throw .unknownRecordType(type) }
            return nil
        }
        let record = try decode(kind, &reader)
        guard reader.isAtEnd else { throw .trailingBytes }
        return record
    }

    private static func decode(_ kind: Kind, _ reader: inout ByteReader) throws(DecodingError) -> Record {
        switch kind {
        case .message: return .message(try message(&reader))
        case .annotatedMessage: return .message(try annotatedMessage(&reader))
        case .acknowledged:
            return .acknowledged(
                AcknowledgedRecord(
                    session: try session(&reader), floor: try delivery(&reader),
                    settledAbove: try deliveries(&reader)))
        case .sessionOpened: return .sessionOpened(try sessionOpened(&reader))
        case .sessionClosed:
            return .sessionClosed(
                SessionClosed(
                    session: try session(&reader), at: Instant(milliseconds: try reader.integer()),
                    expirySeconds: try reader.integer(as: UInt32.self), discardsWill: try boolean(&reader)))
        case .sessionEnded:
            let id = try session(&reader)
            guard let end = SessionEnd(rawValue: try reader.byte()) else { throw .invalidField }
            return .sessionEnded(id, end)
        case .subscribed:
            return .subscribed(try session(&reader), try list(&reader, subscription))
        case .unsubscribed:
            return .unsubscribed(try session(&reader), try list(&reader, topicFilter))
        case .inboundReleased: return .inboundReleased(try session(&reader), try packetIdentifier(&reader))
        case .inboundVoided: return .inboundVoided(try session(&reader))
        case .outboundReceived: return .outboundReceived(try session(&reader), try delivery(&reader))
        case .dropped:
            let id = try session(&reader)
            guard let reason = DropReason(rawValue: try reader.byte()) else { throw .invalidField }
            return .dropped(id, try deliveries(&reader), reason)
        case .uplinkEstablished: return .uplinkEstablished(try session(&reader))
        case .assigned: return .assigned(try assigned(&reader))
        case .returned: return .returned(try session(&reader), try deliveries(&reader))
        case .wasOff:
            return .wasOff(
                OffTime(
                    after: Position(try countable(try reader.integer())),
                    since: Instant(milliseconds: try reader.integer()), milliseconds: try reader.integer()))
        case .profiled: return .profiled(try session(&reader), try name(&reader))
        case .counters: return .counters(nextSession: try countable(try reader.integer()))
        case .retained: return .retained(try retained(&reader))
        case .inboundHeld: return try inboundHeld(&reader)
        case .queue: return .queue(try queue(&reader))
        case .books:
            let id = try session(&reader)
            return .books(id.number == 0 ? nil : id, try books(&reader))
        case .lost:
            return .lost(
                through: Position(try countable(try reader.integer())),
                count: try countable(try reader.integer()))
        }
    }

    // MARK: The parts

    private static func message(_ reader: inout ByteReader) throws(DecodingError) -> MessageRecord {
        let flags = try reader.byte()
        guard let qos = QoS(rawValue: flags >> 4 & 3),
            let retained = MessageRecord.RetainedEffect(rawValue: flags >> 6)
        else { throw .invalidField }
        let publisher = flags & 1 == 0 ? nil : try session(&reader)
        let inboundID = flags & 2 == 0 ? nil : try packetIdentifier(&reader)
        let willOf = flags & 4 == 0 ? nil : try session(&reader)
        let expiresAt = flags & 8 == 0 ? nil : Instant(milliseconds: try reader.integer())
        let targets = try list(&reader, target)
        return MessageRecord(
            publisher: publisher, inboundID: inboundID, willOf: willOf, qos: qos, retained: retained,
            message: try applicationMessage(&reader), expiresAt: expiresAt, targets: targets)
    }

    private static func annotatedMessage(_ reader: inout ByteReader) throws(DecodingError) -> MessageRecord {
        let flags = try reader.byte()
        // What says nothing more is a plain message; a part of what is not there is none.
        guard 1...15 ~= flags, flags & 3 != 2, flags & 12 != 8 else { throw .invalidField }
        var received: MessageRecord.Received?
        if flags & 1 != 0 {
            received = .init(at: Instant(milliseconds: try reader.integer()))
            if flags & 2 != 0 { received?.by = Position(try countable(&reader)) }
        }
        var moved: MessageRecord.Moved?
        if flags & 4 != 0 {
            moved = .init(from: try session(&reader), delivery: try delivery(&reader))
            if flags & 8 != 0 {
                moved?.refusal = .init(
                    reason: ReasonCode(rawValue: try reader.byte()),
                    at: Instant(milliseconds: try reader.integer()))
            }
        }
        var record = try message(&reader)
        record.received = received
        record.moved = moved
        return record
    }

    private static func target(_ reader: inout ByteReader) throws(DecodingError) -> MessageRecord.Target {
        let id = try session(&reader)
        let flags = try reader.byte()
        guard flags & 0xC0 == 0 else { throw .invalidField }
        let qos = try qos(flags)
        let number = flags & 32 == 0 ? nil : try delivery(&reader)
        let identifiers =
            flags & 8 == 0
            ? []
            : try list(&reader) { (reader: inout ByteReader) throws(DecodingError) in
                try reader.integer(as: UInt32.self)
            }
        var rename: TopicRename?
        if flags & 16 != 0 {
            rename = TopicRename(
                dropping: try reader.integer(as: Int.self), prepending: Array(try reader.lengthPrefixed()))
        }
        return MessageRecord.Target(
            session: id, delivery: number, qos: qos, retain: flags & 4 != 0,
            subscriptionIdentifiers: identifiers, rename: rename)
    }

    private static func applicationMessage(_ reader: inout ByteReader) throws(DecodingError)
        -> ApplicationMessage
    {
        let topic = try reader.lengthPrefixed()
        guard topic.count <= Int(UInt16.max) else { throw .invalidField }
        let properties = try reader.lengthPrefixed()
        guard properties.count <= Int(UInt32.max) else { throw .invalidField }
        return ApplicationMessage(
            topic: topic, properties: properties, payload: try reader.take(reader.remaining))
    }

    private static func sessionOpened(_ reader: inout ByteReader) throws(DecodingError) -> SessionOpened {
        let id = try session(&reader)
        let flags = try reader.byte()
        guard flags & 0xC0 == 0, let version = ProtocolVersion(rawValue: try reader.byte()) else {
            throw .invalidField
        }
        let expiry = try reader.integer(as: UInt32.self)
        let owner = try owner(flags, &reader)
        return SessionOpened(
            session: id, owner: owner, version: version, expirySeconds: expiry, isPersistent: flags & 2 != 0,
            will: flags & 4 == 0 ? nil : try will(&reader))
    }

    private static func owner(_ flags: UInt8, _ reader: inout ByteReader) throws(DecodingError)
        -> SessionOwner
    {
        let kind = flags & 0b11_1001
        if kind == 8 {
            let filter = try topicFilter(&reader)
            guard filter.shareName != nil else { throw .invalidField }
            return .group(filter)
        }
        let name = try name(&reader)
        switch kind {
        case 0: return .client(identifier: name)
        case 1: return .uplink(name: name)
        case 32: return .deadLetters(uplink: name)
        case 16:
            let number = try reader.byte()
            guard 1...7 ~= number, let label = String(validating: try reader.lengthPrefixed(), as: UTF8.self)
            else { throw .invalidField }
            return .lane(uplink: name, number: number, label: label)
        default: throw .invalidField
        }
    }

    private static func name(_ reader: inout ByteReader) throws(DecodingError) -> String {
        guard let name = String(validating: try reader.lengthPrefixed(), as: UTF8.self) else {
            throw .invalidField
        }
        return name
    }

    private static func will(_ reader: inout ByteReader) throws(DecodingError) -> Will {
        let flags = try reader.byte()
        guard flags & 0xF0 == 0 else { throw .invalidField }
        let qos = try qos(flags)
        let delay = try reader.integer(as: UInt32.self)
        let expiry = flags & 8 == 0 ? nil : try reader.integer(as: UInt32.self)
        return Will(
            message: try applicationMessage(&reader), qos: qos, retain: flags & 4 != 0, delaySeconds: delay,
            messageExpirySeconds: expiry)
    }

    private static func subscription(_ reader: inout ByteReader) throws(DecodingError) -> Subscription {
        let flags = try reader.byte()
        guard flags & 0xE0 == 0 else { throw .invalidField }
        let qos = try qos(flags)
        let identifier = flags & 16 == 0 ? nil : try reader.integer(as: UInt32.self)
        return Subscription(
            filter: try topicFilter(&reader), maximumQoS: qos, noLocal: flags & 4 != 0,
            retainAsPublished: flags & 8 != 0, identifier: identifier)
    }

    private static func assigned(_ reader: inout ByteReader) throws(DecodingError) -> AssignedRecord {
        let group = try session(&reader)
        let delivery = try delivery(&reader)
        let member = try session(&reader)
        let flags = try reader.byte()
        guard flags & 0xF0 == 0 else { throw .invalidField }
        let qos = try qos(flags)
        let number = flags & 4 == 0 ? nil : try Self.delivery(&reader)
        var source: AssignedRecord.Source?
        if flags & 8 != 0 {
            source = AssignedRecord.Source(
                position: Position(try countable(try reader.integer())), qos: try wholeQoS(&reader),
                bytes: try reader.integer(as: UInt32.self))
        }
        return AssignedRecord(
            group: group, delivery: delivery, member: member, qos: qos, number: number, source: source)
    }

    private static func retained(_ reader: inout ByteReader) throws(DecodingError) -> RetainedRecord {
        let flags = try reader.byte()
        guard flags & 0xE4 == 0, flags & 24 != 16 else { throw .invalidField }
        let qos = try qos(flags)
        let expiresAt = flags & 8 == 0 ? nil : Instant(milliseconds: try reader.integer())
        let storedAt = flags & 16 == 0 ? Position.zero : Position(try countable(try reader.integer()))
        return RetainedRecord(
            message: try applicationMessage(&reader), qos: qos, expiresAt: expiresAt, storedAt: storedAt)
    }

    private static func queue(_ reader: inout ByteReader) throws(DecodingError) -> QueueRecord {
        let id = try session(&reader)
        let floor = try delivery(&reader)
        let unsent = try countable(try reader.integer())
        let unsentFrom = unsent == 0 ? nil : Delivery(try countable(floor.number + unsent - 1))
        var position: UInt64 = 0
        let entries = try list(&reader) { (reader: inout ByteReader) throws(DecodingError) in
            try entry(&reader, after: &position)
        }
        var place = floor.number + UInt64(entries.count)
        var bytes: UInt64 = 0
        let pages = try list(&reader) { (reader: inout ByteReader) throws(DecodingError) in
            let page = try page(&reader, place: &place, after: &position)
            bytes = try countable(bytes + UInt64(page.waitingBytes))
            return page
        }
        let tail = try list(&reader) { (reader: inout ByteReader) throws(DecodingError) in
            try entry(&reader, after: &position)
        }
        var previous: UInt64 = 0
        let strays = try list(&reader) { (reader: inout ByteReader) throws(DecodingError) in
            previous = try countable(previous &+ (try reader.integer()))
            return QueueRecord.Stray(
                delivery: Delivery(previous), entry: try entry(&reader, after: &position))
        }
        if !pages.isEmpty || !tail.isEmpty { _ = try countable(place + UInt64(tail.count)) }
        return QueueRecord(
            session: id, floor: floor, entries: entries, pages: pages, tail: tail, strays: strays,
            unsentFrom: unsentFrom)
    }

    /// Pages come in order of delivery and do not overlap, whatever verifies.
    private static func page(
        _ reader: inout ByteReader, place: inout UInt64, after previous: inout UInt64
    ) throws(DecodingError) -> QueuePage {
        let first = try countable(place &+ (try reader.integer()))
        let span = try countable(try reader.integer())
        let begin = try countable(previous &+ (try reader.integer()))
        let last = try countable(begin &+ (try reader.integer()))
        let count = try reader.integer(as: Int.self)
        let bytes = try reader.integer(as: Int.self)
        guard first >= place, last >= begin, UInt64(count) <= span, UInt64(bytes) < countableLimit else {
            throw .invalidField
        }
        place = try countable(first + span)
        previous = begin
        return QueuePage(
            stretch: Stretch(first: Position(begin), last: Position(last)), first: Delivery(first),
            span: span, waitingCount: count, waitingBytes: bytes)
    }

    private static func entry(
        _ reader: inout ByteReader, after previous: inout UInt64
    ) throws(DecodingError) -> QueueRecord.Entry {
        let flags = try reader.byte()
        guard flags & 16 != 0 || flags & 0x60 == 0 else { throw .invalidField }
        let qos = try qos(flags)
        var origin: QueueRecord.Origin?
        if flags & 16 != 0 {
            origin = QueueRecord.Origin(group: try session(&reader), qos: try Self.qos(flags >> 5))
        }
        var position: Position?
        if flags & 8 != 0 {
            previous = try countable(previous &+ (try reader.integer()))
            position = Position(previous)
        }
        return QueueRecord.Entry(
            position: position, qos: qos, isReceived: flags & 4 != 0,
            bytes: try reader.integer(as: UInt32.self), isStray: flags & 128 != 0,
            origin: origin)
    }

    private static func books(_ reader: inout ByteReader) throws(DecodingError) -> Books {
        let (received, takenOver) = (try countable(&reader), try countable(&reader))
        let (delivered, handedOver) = (try countable(&reader), try countable(&reader))
        let dropped = try list(&reader) {
            (reader: inout ByteReader) throws(DecodingError) -> (reason: DropReason, count: UInt64) in
            guard let reason = DropReason(rawValue: try reader.byte()) else { throw .invalidField }
            return (reason, try countable(&reader))
        }
        return Books(
            received: received, takenOver: takenOver, delivered: delivered, handedOver: handedOver,
            dropped: dropped)
    }

    private static func countable(_ reader: inout ByteReader) throws(DecodingError) -> UInt64 {
        try countable(try reader.integer())
    }

    private static func deliveries(_ reader: inout ByteReader) throws(DecodingError) -> [Delivery] {
        var previous: UInt64 = 0
        return try list(&reader) { (reader: inout ByteReader) throws(DecodingError) in
            previous = try countable(previous &+ (try reader.integer()))
            return Delivery(previous)
        }
    }

    // MARK: The smallest parts

    /// A count, then as many elements of at least a byte each: the count is never trusted with memory.
    private static func inboundHeld(_ reader: inout ByteReader) throws(DecodingError) -> Record {
        let session = try session(&reader)
        var held = try list(&reader, packetIdentifier).map { HeldIdentifier($0) }
        if reader.remaining > 0 {
            for i in held.indices { held[i].digest = try reader.fixed(UInt32.self) }
        }
        return .inboundHeld(session, held)
    }

    private static func list<Element>(
        _ reader: inout ByteReader, _ element: (inout ByteReader) throws(DecodingError) -> Element
    ) throws(DecodingError) -> [Element] {
        let count = try reader.length()
        var elements: [Element] = []
        for _ in 0..<count { elements.append(try element(&reader)) }
        return elements
    }

    private static func session(_ reader: inout ByteReader) throws(DecodingError) -> SessionID {
        SessionID(try countable(try reader.integer()))
    }

    private static func delivery(_ reader: inout ByteReader) throws(DecodingError) -> Delivery {
        Delivery(try countable(try reader.integer()))
    }

    /// A number that is counted on from: so far from the top that this never overflows.
    private static func countable(_ number: UInt64) throws(DecodingError) -> UInt64 {
        guard number < countableLimit else { throw .invalidField }
        return number
    }

    private static func packetIdentifier(_ reader: inout ByteReader) throws(DecodingError) -> PacketIdentifier
    {
        guard let id = PacketIdentifier(rawValue: try reader.integer(as: UInt16.self)) else {
            throw .invalidField
        }
        return id
    }

    private static func topicFilter(_ reader: inout ByteReader) throws(DecodingError) -> TopicFilter {
        guard let filter = TopicFilter(try reader.lengthPrefixed()) else { throw .invalidField }
        return filter
    }

    private static func boolean(_ reader: inout ByteReader) throws(DecodingError) -> Bool {
        switch try reader.byte() {
        case 0: return false
        case 1: return true
        default: throw .invalidField
        }
    }

    private static func wholeQoS(_ reader: inout ByteReader) throws(DecodingError) -> QoS {
        guard let qos = QoS(rawValue: try reader.byte()) else { throw .invalidField }
        return qos
    }

    private static func qos(_ flags: UInt8) throws(DecodingError) -> QoS {
        guard let qos = QoS(rawValue: flags & 3) else { throw .invalidField }
        return qos
    }
}
