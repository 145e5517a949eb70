import GatewayCore
import MQTT

/// Records as bytes: `length | type | body`, integers in LEB128. Format.md has the table.
package enum RecordCodec {
    /// The number of each Record on disk. 0 is none, so that zeros are no Record; numbers from 128 on may be
    /// skipped by a version that does not know them.
    enum Kind: UInt8 {
        case message = 1
        case acknowledged = 2
        case sessionOpened = 3
        case sessionClosed = 4
        case sessionEnded = 5
        case subscribed = 6
        case unsubscribed = 7
        case inboundReleased = 8
        case inboundVoided = 9
        case outboundReceived = 10
        case dropped = 11
        case uplinkEstablished = 12
        case assigned = 13
        case returned = 14
        case wasOff = 15
        /// A message of which more is known than a plain one has room for.
        case annotatedMessage = 16
        case counters = 32
        case retained = 33
        case inboundHeld = 34
        case queue = 36
        case books = 160
        case lost = 161
        case profiled = 162
    }

    static let ignorableBit: UInt8 = 0x80
    /// The place of a Record that need not be written: one that every version skips.
    static let emptyFrame: [UInt8] = [1, ignorableBit]

    /// Appends `record` with its length before it.
    ///
    /// - Complexity: O(bytes)
    static func frame(_ record: Record, into bytes: inout [UInt8]) {
        // Two bytes is what the length of most messages takes; for any other the Record makes room or closes up.
        let place = bytes.count
        bytes.append(0)
        bytes.append(0)
        encode(record, into: &bytes)
        let length = bytes.count - place - 2
        if length < 0x80 {
            bytes[place] = UInt8(length)
            bytes.remove(at: place + 1)
        } else if length < 0x4000 {
            bytes[place] = UInt8(length & 0x7F) | 0x80
            bytes[place + 1] = UInt8(length >> 7)
        } else {
            var prefix: [UInt8] = []
            prefix.append(integer: UInt64(length))
            bytes.replaceSubrange(place..<place + 2, with: prefix)
        }
    }

    /// Appends type and body of `record`.
    ///
    /// - Complexity: O(bytes)
    package static func encode(_ record: Record, into bytes: inout [UInt8]) {
        bytes.append(kind(of: record).rawValue)
        switch record {
        case .message(let message):
            if message.isAnnotated { appendNotes(of: message, to: &bytes) }
            append(message, to: &bytes)
        case .acknowledged(let settled):
            bytes.append(integer: settled.session.number)
            bytes.append(integer: settled.floor.number)
            append(settled.settledAbove, to: &bytes)
        case .sessionOpened(let opened): append(opened, to: &bytes)
        case .sessionClosed(let closed):
            bytes.append(integer: closed.session.number)
            bytes.append(integer: closed.at.milliseconds)
            bytes.append(integer: UInt64(closed.expirySeconds))
            bytes.append(closed.discardsWill ? 1 : 0)
        case .sessionEnded(let session, let end):
            bytes.append(integer: session.number)
            bytes.append(end.rawValue)
        case .subscribed(let session, let subscriptions):
            bytes.append(integer: session.number)
            bytes.append(integer: UInt64(subscriptions.count))
            for subscription in subscriptions { append(subscription, to: &bytes) }
        case .unsubscribed(let session, let filters):
            bytes.append(integer: session.number)
            bytes.append(integer: UInt64(filters.count))
            for filter in filters { bytes.append(lengthPrefixed: filter.bytes) }
        case .inboundReleased(let session, let id):
            bytes.append(integer: session.number)
            bytes.append(integer: UInt64(id.rawValue))
        case .inboundVoided(let session), .uplinkEstablished(let session):
            bytes.append(integer: session.number)
        case .outboundReceived(let session, let delivery):
            bytes.append(integer: session.number)
            bytes.append(integer: delivery.number)
        case .dropped(let session, let deliveries, let reason):
            bytes.append(integer: session.number)
            bytes.append(reason.rawValue)
            append(deliveries, to: &bytes)
        case .assigned(let assigned):
            bytes.append(integer: assigned.group.number)
            bytes.append(integer: assigned.delivery.number)
            bytes.append(integer: assigned.member.number)
            bytes.append(
                assigned.qos.rawValue | (assigned.number == nil ? 0 : 4) | (assigned.source == nil ? 0 : 8))
            if let number = assigned.number { bytes.append(integer: number.number) }
            if let source = assigned.source {
                bytes.append(integer: source.position.number)
                bytes.append(source.qos.rawValue)
                bytes.append(integer: UInt64(source.bytes))
            }
        case .returned(let session, let deliveries):
            bytes.append(integer: session.number)
            append(deliveries, to: &bytes)
        case .wasOff(let off):
            bytes.append(integer: off.after.number)
            bytes.append(integer: off.since.milliseconds)
            bytes.append(integer: off.milliseconds)
        case .profiled(let session, let name):
            bytes.append(integer: session.number)
            bytes.append(lengthPrefixed: name.utf8)
        case .counters(let nextSession): bytes.append(integer: nextSession)
        case .retained(let retained): append(retained, to: &bytes)
        case .inboundHeld(let session, let ids):
            bytes.append(integer: session.number)
            bytes.append(integer: UInt64(ids.count))
            for held in ids { bytes.append(integer: UInt64(held.id.rawValue)) }
            if ids.contains(where: { $0.digest != 0 }) {
                for held in ids { bytes.append(fixed: held.digest) }
            }
        case .queue(let queue): append(queue, to: &bytes)
        case .books(let session, let books):
            // Sessions are numbered from 1.
            bytes.append(integer: session?.number ?? 0)
            append(books, to: &bytes)
        case .lost(let position, let count):
            bytes.append(integer: position.number)
            bytes.append(integer: count)
        }
    }

    private static func kind(of record: Record) -> Kind {
        switch record {
        case .message(let message): message.isAnnotated ? .annotatedMessage : .message
        case .acknowledged: .acknowledged
        case .sessionOpened: .sessionOpened
        case .sessionClosed: .sessionClosed
        case .sessionEnded: .sessionEnded
        case .subscribed: .subscribed
        case .unsubscribed: .unsubscribed
        case .inboundReleased: .inboundReleased
        case .inboundVoided: .inboundVoided
        case .outboundReceived: .outboundReceived
        case .dropped: .dropped
        case .uplinkEstablished: .uplinkEstablished
        case .assigned: .assigned
        case .returned: .returned
        case .wasOff: .wasOff
        case .profiled: .profiled
        case .counters: .counters
        case .retained: .retained
        case .inboundHeld: .inboundHeld
        case .queue: .queue
        case .books: .books
        case .lost: .lost
        }
    }

    // MARK: The parts

    private static func appendNotes(of record: MessageRecord, to bytes: inout [UInt8]) {
        var flags: UInt8 = 0
        if let received = record.received { flags |= received.by == .zero ? 1 : 3 }
        if let moved = record.moved { flags |= moved.refusal == nil ? 4 : 12 }
        bytes.append(flags)
        if let received = record.received {
            bytes.append(integer: received.at.milliseconds)
            if received.by != .zero { bytes.append(integer: received.by.number) }
        }
        guard let moved = record.moved else { return }
        bytes.append(integer: moved.from.number)
        bytes.append(integer: moved.delivery.number)
        guard let refusal = moved.refusal else { return }
        bytes.append(refusal.reason.rawValue)
        bytes.append(integer: refusal.at.milliseconds)
    }

    private static func append(_ record: MessageRecord, to bytes: inout [UInt8]) {
        var flags = record.qos.rawValue << 4 | record.retained.rawValue << 6
        if record.publisher != nil { flags |= 1 }
        if record.inboundID != nil { flags |= 2 }
        if record.willOf != nil { flags |= 4 }
        if record.expiresAt != nil { flags |= 8 }
        bytes.append(flags)
        if let publisher = record.publisher { bytes.append(integer: publisher.number) }
        if let id = record.inboundID { bytes.append(integer: UInt64(id.rawValue)) }
        if let session = record.willOf { bytes.append(integer: session.number) }
        if let moment = record.expiresAt { bytes.append(integer: moment.milliseconds) }
        bytes.append(integer: UInt64(record.targets.count))
        record.targets.withUnsafeBufferPointer { targets in
            // By their addresses: going through an Array copies each.
            for i in targets.indices { append(targets[i], to: &bytes) }
        }
        append(record.message, to: &bytes)
    }

    // In line, for else it is copied first.
    @inline(__always)
    private static func append(_ target: MessageRecord.Target, to bytes: inout [UInt8]) {
        bytes.append(integer: target.session.number)
        var flags = target.qos.rawValue
        if target.retain { flags |= 4 }
        if !target.subscriptionIdentifiers.isEmpty { flags |= 8 }
        if target.rename != nil { flags |= 16 }
        if target.delivery != nil { flags |= 32 }
        bytes.append(flags)
        if let delivery = target.delivery { bytes.append(integer: delivery.number) }
        if !target.subscriptionIdentifiers.isEmpty {
            bytes.append(integer: UInt64(target.subscriptionIdentifiers.count))
            for id in target.subscriptionIdentifiers { bytes.append(integer: UInt64(id)) }
        }
        if target.rename != nil, let rename = target.rename {
            bytes.append(integer: UInt64(rename.dropping))
            bytes.append(lengthPrefixed: rename.prepending)
        }
    }

    /// Last in its Record: the payload needs no length.
    private static func append(_ message: ApplicationMessage, to bytes: inout [UInt8]) {
        message.withParts { topic, properties, payload in
            bytes.append(lengthPrefixed: topic)
            bytes.append(lengthPrefixed: properties)
            bytes.append(contentsOf: payload)
        }
    }

    private static func append(_ opened: SessionOpened, to bytes: inout [UInt8]) {
        bytes.append(integer: opened.session.number)
        var flags: UInt8 = 0
        if case .uplink = opened.owner { flags |= 1 }
        if case .group = opened.owner { flags |= 8 }
        if case .lane = opened.owner { flags |= 16 }
        if case .deadLetters = opened.owner { flags |= 32 }
        if opened.isPersistent { flags |= 2 }
        if opened.will != nil { flags |= 4 }
        bytes.append(flags)
        bytes.append(opened.version.rawValue)
        bytes.append(integer: UInt64(opened.expirySeconds))
        switch opened.owner {
        case .client(let name), .uplink(let name), .deadLetters(let name):
            bytes.append(lengthPrefixed: name.utf8)
        case .lane(let name, let number, let label):
            bytes.append(lengthPrefixed: name.utf8)
            bytes.append(number)
            bytes.append(lengthPrefixed: label.utf8)
        case .group(let filter): bytes.append(lengthPrefixed: filter.bytes)
        }
        if let will = opened.will { append(will, to: &bytes) }
    }

    private static func append(_ will: Will, to bytes: inout [UInt8]) {
        bytes.append(
            will.qos.rawValue | (will.retain ? 4 : 0) | (will.messageExpirySeconds == nil ? 0 : 8))
        bytes.append(integer: UInt64(will.delaySeconds))
        if let seconds = will.messageExpirySeconds { bytes.append(integer: UInt64(seconds)) }
        append(will.message, to: &bytes)
    }

    private static func append(_ subscription: Subscription, to bytes: inout [UInt8]) {
        var flags = subscription.maximumQoS.rawValue
        if subscription.noLocal { flags |= 4 }
        if subscription.retainAsPublished { flags |= 8 }
        if subscription.identifier != nil { flags |= 16 }
        bytes.append(flags)
        if let id = subscription.identifier { bytes.append(integer: UInt64(id)) }
        bytes.append(lengthPrefixed: subscription.filter.bytes)
    }

    private static func append(_ retained: RetainedRecord, to bytes: inout [UInt8]) {
        let isPlaced = retained.storedAt != .zero
        bytes.append(
            retained.qos.rawValue | (retained.expiresAt == nil ? 0 : 8) | (isPlaced ? 16 : 0))
        if let moment = retained.expiresAt { bytes.append(integer: moment.milliseconds) }
        if isPlaced { bytes.append(integer: retained.storedAt.number) }
        append(retained.message, to: &bytes)
    }

    /// Each position as its distance to the one before, modulo 2^64: a queue's entries lie close together.
    private static func append(_ queue: QueueRecord, to bytes: inout [UInt8]) {
        bytes.append(integer: queue.session.number)
        bytes.append(integer: queue.floor.number)
        // 0 for nothing; nobody but a damaged queue has it before the floor.
        let unsent = queue.unsentFrom.map {
            $0.number < queue.floor.number ? 0 : $0.number - queue.floor.number
        }
        bytes.append(integer: unsent.map { $0 + 1 } ?? 0)
        var position: UInt64 = 0
        bytes.append(integer: UInt64(queue.entries.count))
        for entry in queue.entries { append(entry, after: &position, to: &bytes) }
        // Where nothing is missing a page begins behind the entries or the page before it, and this is 0.
        var place = queue.floor.number &+ UInt64(queue.entries.count)
        bytes.append(integer: UInt64(queue.pages.count))
        for page in queue.pages {
            bytes.append(integer: page.first.number &- place)
            bytes.append(integer: page.span)
            bytes.append(integer: page.stretch.first.number &- position)
            bytes.append(integer: page.stretch.last.number &- page.stretch.first.number)
            bytes.append(integer: UInt64(page.waitingCount))
            bytes.append(integer: UInt64(page.waitingBytes))
            place = page.end.number
            position = page.stretch.first.number
        }
        bytes.append(integer: UInt64(queue.tail.count))
        for entry in queue.tail { append(entry, after: &position, to: &bytes) }
        bytes.append(integer: UInt64(queue.strays.count))
        var delivery: UInt64 = 0
        for stray in queue.strays {
            bytes.append(integer: stray.delivery.number &- delivery)
            append(stray.entry, after: &position, to: &bytes)
            delivery = stray.delivery.number
        }
    }

    private static func append(
        _ entry: QueueRecord.Entry, after previous: inout UInt64, to bytes: inout [UInt8]
    ) {
        var flags = entry.qos.rawValue | (entry.isReceived ? 4 : 0) | (entry.position == nil ? 0 : 8)
        if let origin = entry.origin { flags |= 16 | origin.qos.rawValue << 5 }
        if entry.isStray { flags |= 128 }
        bytes.append(flags)
        if let origin = entry.origin { bytes.append(integer: origin.group.number) }
        if let position = entry.position {
            bytes.append(integer: position.number &- previous)
            previous = position.number
        }
        bytes.append(integer: UInt64(entry.bytes))
    }

    private static func append(_ books: Books, to bytes: inout [UInt8]) {
        for count in [books.received, books.takenOver, books.delivered, books.handedOver] {
            bytes.append(integer: count)
        }
        let dropped = books.dropped
        bytes.append(integer: UInt64(dropped.count))
        for (reason, count) in dropped {
            bytes.append(reason.rawValue)
            bytes.append(integer: count)
        }
    }

    private static func append(_ deliveries: [Delivery], to bytes: inout [UInt8]) {
        bytes.append(integer: UInt64(deliveries.count))
        var previous: UInt64 = 0
        for delivery in deliveries {
            bytes.append(integer: delivery.number &- previous)
            previous = delivery.number
        }
    }
}

extension MessageRecord {
    fileprivate var isAnnotated: Bool { received != nil || moved != nil }
}
