import DequeModule
import MQTT

/// PUBLISH packets for which there is no room, of a client that cannot be told so: before MQTT 5 there are no
/// words for it, so they wait unacknowledged, in the order in which they came.
struct HeldPublishes {
    private var publishes: Deque<Publish> = []
    /// What they take in memory, about.
    private(set) var bytes = 0

    var count: Int { publishes.count }
    var isEmpty: Bool { publishes.isEmpty }
    var first: Publish? { publishes.first }
    /// Those that nobody acknowledges, in order.
    var atMostOnce: [Publish] { publishes.filter { $0.qos == .atMostOnce } }

    mutating func append(_ publish: Publish) {
        publishes.append(publish)
        bytes += publish.heldBytes
    }

    mutating func removeFirst() { bytes -= publishes.removeFirst().heldBytes }
}

extension Publish {
    /// What it takes in memory, about.
    var heldBytes: Int { message.bytes.count + 256 }
}

// Honest pressure towards clients of before MQTT 5 (promise P4).
//
// What waits is a client's publishing and nothing else. It is read on: its acknowledgements may be what makes room
// in the very queue its PUBLISH waits for, its PINGREQ says that it is alive, and a DISCONNECT is to be heeded. No
// clause orders SUBSCRIBE and UNSUBSCRIBE among PUBLISH packets, and some clients answer nothing before SUBACK; so
// those pass as well. What is published behind a held PUBLISH waits behind it, at whatever QoS [MQTT311-4.6.0-6].
//
// Only who sends more than the bounds on what is held allow is not read any more.
extension Gateway {
    /// Keeps a PUBLISH until there is room. Beyond the bounds QoS 0 is dropped, counted, so that telemetry cannot
    /// stop a client's acknowledgements; for the sake of the others its socket is not read.
    mutating func hold(
        _ publish: Publish, from id: ConnectionID, at now: Instant, into effects: inout [Effect]
    ) {
        if publish.qos == .atMostOnce, holdsTooMuch(id) {
            let identifier = clientIdentifier(of: id) ?? ""
            effects.append(.report(.dropped(owner: .client(identifier: identifier), .queueFull, count: 1)))
            return
        }
        _ = connections.update(id) { $0.held.append(publish) }
        heldBytes += publish.heldBytes
        if publish.qos > .atMostOnce, holdsTooMuch(id) { pauseReading(id, into: &effects) }
        retryHeldPackets(at: now)
    }

    private func holdsTooMuch(_ id: ConnectionID) -> Bool {
        heldBytes >= plan.limits.heldBytesMax
            || connections.read(id) { connection in
                connection.held.count >= plan.limits.heldPerConnectionMax
                    || connection.held.bytes >= plan.limits.heldBytesPerConnectionMax
            } == true
    }

    /// A queue that was full drains without an event of its own: look again in a second.
    mutating func retryHeldPackets(at now: Instant) {
        guard !isRetryScheduled else { return }
        isRetryScheduled = true
        schedule(.heldPackets, at: now.advanced(byMilliseconds: 1000))
    }

    /// Tries everything held, of every client and uplink.
    ///
    /// - Complexity: O(connections + taken), at most once a second
    mutating func takeHeldPackets(at now: Instant, into effects: inout [Effect]) {
        takeHeldUplinkPackets(at: now, into: &effects)
        for id in connections.keys { takeHeld(of: id, at: now, into: &effects) }
        if heldBytes > 0 { retryHeldPackets(at: now) }
    }

    /// Takes what one client's held packets find room for, in order, and reads it again if that was enough. A client whose
    /// rights were withdrawn meanwhile is closed where its turn comes.
    ///
    /// - Complexity: O(taken)
    mutating func takeHeld(of id: ConnectionID, at now: Instant, into effects: inout [Effect]) {
        while let held = connections.read(
            id, { ($0.session, $0.version, $0.held.first, $0.treatment) }), let session = held.0,
            let publish = held.2
        {
            guard mayStillPublish(publish, session, as: held.3) else {
                // It has no answer that says so [MQTT311-3.3.5-2].
                if let treatment = held.3 { count(\.refusedPublishes, of: treatment) }
                return end(id, .protocolError(.notAuthorized), at: now, into: &effects)
            }
            guard
                take(
                    publish, from: session, peer: .client(id), version: held.1, as: held.3, at: now,
                    into: &effects)
            else { break }
            _ = connections.update(id) { $0.held.removeFirst() }
            heldBytes -= publish.heldBytes
        }
        readOn(id, at: now, into: &effects)
    }

    /// The connection ends: what waits at QoS 0 needs no room and goes its way, if it is still allowed, and the rest its
    /// client still owns and sends again, because nobody has acknowledged it.
    mutating func letHeldGo(of id: ConnectionID, at now: Instant, into effects: inout [Effect]) {
        let found = connections.update(id) { connection in
            defer { connection.held = HeldPublishes() }
            return (connection.session, connection.version, connection.held, connection.treatment)
        }
        guard let (session, version, held, treatment) = found, !held.isEmpty else { return }
        heldBytes -= held.bytes
        guard let session else { return }
        var notAllowedCount = 0
        for publish in held.atMostOnce {
            guard mayStillPublish(publish, session, as: treatment) else {
                notAllowedCount += 1
                continue
            }
            _ = take(
                publish, from: session, peer: .client(id), version: version, as: treatment, at: now,
                into: &effects)
        }
        guard notAllowedCount > 0, let owner = read(session, { $0.owner }) else { return }
        effects.append(.report(.dropped(owner: owner, .notAllowed, count: notAllowedCount)))
    }

    /// Rights may have changed since it came. A QoS 2 message that was taken stays taken.
    private func mayStillPublish(
        _ publish: Publish, _ session: SessionID, as treatment: Treatment?
    ) -> Bool {
        treatment?.publish.allows(topic: publish.message.topic) ?? true || isKnown(publish, from: session)
    }

    // MARK: Reading

    mutating func pauseReading(_ id: ConnectionID, into effects: inout [Effect]) {
        let changed = connections.update(id) { connection in
            defer { connection.isReadingPaused = true }
            return !connection.isReadingPaused
        }
        if changed == true { effects.append(.reading(id, false)) }
    }

    /// Reads a client again once half of what kept us from it is gone: of its own held packets, and of the answers
    /// parked for it.
    mutating func readOn(_ id: ConnectionID, at now: Instant, into effects: inout [Effect]) {
        let (countMax, bytesMax) = (plan.limits.heldPerConnectionMax, plan.limits.heldBytesPerConnectionMax)
        let isTotalReached = heldBytes >= plan.limits.heldBytesMax
        let mayGoOn = connections.read(id) { connection in
            connection.isReadingPaused && connection.session != nil
                && (connection.held.isEmpty
                    || !isTotalReached && connection.held.count <= countMax / 2
                        && connection.held.bytes <= bytesMax / 2)
        }
        guard mayGoOn == true, !isTooFast(id, at: now),
            gate.parkedCount(for: .client(id)) <= plan.limits.parkedPerConnectionMax / 2
        else { return }
        _ = connections.update(id) { connection in
            connection.isReadingPaused = false
            // Its silence was our doing.
            connection.lastHeardAt = now
        }
        effects.append(.reading(id, true))
    }
}
