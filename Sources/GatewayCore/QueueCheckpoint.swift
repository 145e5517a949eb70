import DequeModule
import MQTT

// A queue as a checkpoint keeps it.
extension MessageQueue {
    /// From the first delivery on that needs a Record: entries up to the first hole, then the holes as pages without gaps between them, then the entries behind.
    /// Entries between holes are strays, and a page of which nothing waits makes room for them.
    ///
    /// - Complexity: O(entries in memory + pages)
    func record(for session: SessionID, isAway: Bool) -> QueueRecord {
        var delivery = floor
        var next = holes.startIndex
        var first = entries.startIndex
        while first < entries.endIndex, entries[first].isGone,
            next == holes.endIndex || delivery < holes[next].first
        {
            first += 1
            delivery = Delivery(delivery.number + 1)
            while next < holes.endIndex, holes[next].stretch == nil, holes[next].first == delivery {
                delivery = holes[next].end
                next += 1
            }
        }
        var record = QueueRecord(session: session, floor: delivery, entries: [])
        let firstHole = next
        for entry in entries[first...] {
            while next < holes.endIndex, holes[next].first == delivery {
                record.add(holes[next])
                delivery = holes[next].end
                next += 1
            }
            let kept = self.record(of: entry, at: delivery)
            if next == firstHole {
                record.entries.append(kept)
            } else if next < holes.endIndex {
                record.strays.append(.init(delivery: delivery, entry: kept))
                record.add(Hole(first: delivery, span: 1, stretch: nil, bytes: 0))
            } else {
                record.tail.append(kept)
            }
            delivery = Delivery(delivery.number + 1)
        }
        for hole in holes[next...] { record.add(hole) }
        record.unsentFrom = isAway ? max(record.floor, unsentFrom) : nil
        return record
    }

    private func record(of entry: Entry, at delivery: Delivery) -> QueueRecord.Entry {
        let isGone = entry.isGone
        let assignment = isGone ? nil : assignment(of: delivery)
        return QueueRecord.Entry(
            position: isGone ? nil : entry.position, qos: entry.qos, isReceived: entry.phase == .received,
            bytes: isGone || entry.phase == .received ? 0 : entry.bytes, isStray: !isGone && entry.isStray,
            origin: assignment.map { QueueRecord.Origin(group: $0.group, qos: $0.groupQoS) })
    }

    /// What a damaged checkpoint may say does no harm: what does not fit is left out.
    init(_ record: QueueRecord) {
        floor = record.floor
        end = floor
        confirmedFloor = floor
        for entry in record.entries { restore(entry) }
        var strays = record.strays[...]
        for page in record.pages where page.first >= end && page.span > 0 {
            guard page.first.number < Delivery.countableLimit, page.span < Delivery.countableLimit else {
                break
            }
            while let stray = strays.first, stray.delivery < page.first { restore(strays.removeFirst()) }
            openGap(to: page.first)
            if page.waitingCount == 0 {
                while let stray = strays.first, stray.delivery < page.end { restore(strays.removeFirst()) }
                openGap(to: page.end)
            } else {
                holes.append(
                    Hole(first: page.first, span: page.span, stretch: page.stretch, bytes: page.waitingBytes))
                pagedCount += Int(page.span)
                waitingCount += Int(page.span)
                waitingBytes += page.waitingBytes
                end = page.end
            }
        }
        for stray in strays { restore(stray) }
        for entry in record.tail { restore(entry) }
        unsentFrom = record.unsentFrom ?? end
        passElided()
    }

    private mutating func restore(_ stray: QueueRecord.Stray) {
        guard stray.delivery >= end, stray.delivery.number < Delivery.countableLimit else { return }
        openGap(to: stray.delivery)
        restore(stray.entry)
    }

    private mutating func restore(_ entry: QueueRecord.Entry) {
        let phase: Phase = entry.position == nil ? .settled : entry.isReceived ? .received : .waiting
        if let origin = entry.origin {
            assignments.append(
                Assignment(
                    delivery: end, group: origin.group, groupQoS: origin.qos, source: nil, recordedAt: .zero))
        }
        let isStray = entry.isStray || entry.origin != nil
        entries.append(
            Entry(
                position: entry.position ?? .zero, bytes: entry.bytes, qos: entry.qos, phase: phase,
                isStray: isStray, isElided: phase == .settled, isBooked: phase == .settled))
        end = Delivery(end.number + 1)
        if isStray { strayCount += 1 }
        if phase != .settled {
            waitingCount += 1
            waitingBytes += Int(entry.bytes)
        }
    }
}

extension MessageQueue.Entry {
    /// Settled, and nothing but the ones before it keeps it here.
    fileprivate var isGone: Bool { position == .zero && phase == .settled }
}

extension QueueRecord {
    /// Adds a hole behind the pages; what is settled, and room for strays, is one page as long as it lasts.
    fileprivate mutating func add(_ hole: Hole) {
        if let stretch = hole.stretch {
            pages.append(
                QueuePage(
                    stretch: stretch, first: hole.first, span: hole.span, waitingCount: Int(hole.span),
                    waitingBytes: hole.bytes))
        } else if let last = pages.last, last.waitingCount == 0 {
            pages[pages.count - 1].span += hole.span
        } else {
            pages.append(
                QueuePage(
                    stretch: Stretch(first: .zero, last: .zero), first: hole.first, span: hole.span,
                    waitingCount: 0, waitingBytes: 0))
        }
    }
}

// What a start makes of a queue that Records brought back.
extension MessageQueue {
    /// What may have been sent before the start goes out with DUP. Of a receiver that was away, that is what came
    /// before it went; the rest is sent for the first time, so without [MQTT5-3.3.1-1, MQTT311-3.3.1-3], and may
    /// still expire [MQTT5-3.3.2-5]. Nothing beyond the reach of Packet Identifiers was sent.
    mutating func assumeSent(isAway: Bool, span: UInt64) {
        sentBelow = min(isAway ? unsentFrom : end, Delivery(floor.number + span))
    }

    /// The receiver forgot what it was sent: all of it is new to it.
    ///
    /// - Complexity: O(entries in memory)
    mutating func assumeNotSent() {
        sentBelow = Delivery(0)
        for i in entries.indices where entries[i].phase == .sent { entries[i].phase = .waiting }
    }

    /// Deliveries that await only PUBCOMP, after PUBREC.
    ///
    /// - Complexity: O(entries in memory)
    var received: [Delivery] {
        deliveries { $0.phase == .received && !$0.isUnreadable }
    }

    /// Damaged deliveries whose handshakes are being ended.
    ///
    /// - Complexity: O(entries in memory)
    var unreadable: [Delivery] { deliveries(where: \.isUnreadable) }

    private func deliveries(where isMeant: (Entry) -> Bool) -> [Delivery] {
        entries.indices.filter { isMeant(entries[$0]) }.map { delivery(at: $0) }
    }
}
