import CMosquitto
import Foundation

/// The thread of one `Client`: it alone touches the library's handle, so nothing of it needs a lock.
final class ClientThread {
    private let client: Client
    private var handle: OpaquePointer
    private var everConnected = false
    private var inSession = false
    private var nextAttempt = 0.0
    private var publishingSince: Double?
    /// Messages of each publication that were due before the latest pause, and those skipped at QoS 0.
    private var dueBefore: [Int]
    private var sent: [Int]
    private var unanswered: [Int]
    private var identifiers: [Int32: (publication: Int, number: Int)] = [:]
    private var pendingSubscriptions = 0
    /// QoS 2 messages received and not yet released, by Packet Identifier.
    private var unreleased: Set<Int32> = []

    init(_ client: Client) {
        self.client = client
        let count = client.plan.publications.count
        dueBefore = Array(repeating: 0, count: count)
        sent = dueBefore
        unanswered = dueBefore
        guard let handle = mosquitto_new(client.plan.id, false, nil) else {
            fatalError("libmosquitto cannot make a client")
        }
        self.handle = handle
        let version = client.plan.version == .v5 ? MQTT_PROTOCOL_V5 : MQTT_PROTOCOL_V311
        mosquitto_int_option(handle, MOSQ_OPT_PROTOCOL_VERSION, version)
        mosquitto_int_option(handle, MOSQ_OPT_RECEIVE_MAXIMUM, 1000)
        mosquitto_int_option(handle, MOSQ_OPT_SEND_MAXIMUM, 1000)
        mosquitto_int_option(handle, MOSQ_OPT_TCP_NODELAY, 1)
        // "Threaded" makes the library only queue what it answers; `exchange` writes it. Otherwise it writes
        // PUBCOMP while it handles PUBREL, and when that write finds the connection broken it throws the
        // message away (2.0.11, handle__pubrel): a PUBREL read just before the line was cut, and PUBREL resent
        // on the next connection, would both be answered, and the message be handed to nobody.
        mosquitto_threaded_set(handle, true)
        mosquitto_user_data_set(handle, Unmanaged.passUnretained(self).toOpaque())
        mosquitto_connect_v5_callback_set(handle) { _, me, reason, flags, _ in
            ClientThread.from(me).connected(reason: reason, sessionPresent: flags & 1 != 0)
        }
        mosquitto_disconnect_v5_callback_set(handle) { _, me, reason, _ in
            // Below 0x80 it is the library's own code for a connection that broke.
            ClientThread.from(me).disconnected(reason: reason >= 0x80 ? reason : nil)
        }
        mosquitto_subscribe_v5_callback_set(handle) { _, me, _, count, granted, _ in
            ClientThread.from(me).subscribed(UnsafeBufferPointer(start: granted, count: Int(count)))
        }
        mosquitto_publish_v5_callback_set(handle) { _, me, identifier, reason, _ in
            ClientThread.from(me).acknowledged(identifier, reason: reason)
        }
        mosquitto_log_callback_set(handle) { _, me, _, text in
            if let text { ClientThread.from(me).logged(String(cString: text)) }
        }
        mosquitto_message_v5_callback_set(handle) { _, me, message, _ in
            if let message { ClientThread.from(me).received(message.pointee) }
        }
    }

    private static func from(_ pointer: UnsafeMutableRawPointer?) -> ClientThread {
        guard let pointer else { fatalError("a callback without its client") }
        return Unmanaged<ClientThread>.fromOpaque(pointer).takeUnretainedValue()
    }

    func run() {
        defer { mosquitto_destroy(handle) }
        while true {
            switch client.state.withLock({ $0.wish }) {
            case .ended:
                leave(abruptly: false)
                return
            case .leaving(let abruptly):
                leave(abruptly: abruptly)
                client.state.withLock { if $0.wish == .leaving(abruptly: abruptly) { $0.wish = .away } }
            case .away:
                wait(milliseconds: 1000)
            case .here:
                if mosquitto_socket(handle) < 0 {
                    connect()
                } else {
                    if inSession { publishDue() }
                    exchange()
                }
            }
        }
    }

    // MARK: - Connecting

    private func connect() {
        let now = monotonicSeconds()
        guard now >= nextAttempt else {
            skipMissedMeasurements()
            wait(milliseconds: Int32(max(1, (nextAttempt - now) * 1000)))
            return
        }
        nextAttempt = now + 0.1
        if everConnected {
            note(mosquitto_reconnect(handle))
            return
        }
        var properties: OpaquePointer?
        defer { mosquitto_property_free_all(&properties) }
        if client.plan.version == .v5 {
            mosquitto_property_add_int32(
                &properties, Int32(MQTT_PROP_SESSION_EXPIRY_INTERVAL.rawValue),
                client.plan.sessionExpirySeconds)
        }
        let plan = client.plan
        note(
            mosquitto_connect_bind_v5(
                handle, "127.0.0.1", Int32(plan.port), plan.keepAliveSeconds, nil, properties))
        everConnected = true
    }

    private func connected(reason: Int32, sessionPresent: Bool) {
        guard reason == 0 else {
            client.state.withLock { $0.lastError = "CONNACK \(reason)" }
            return
        }
        inSession = true
        let subscribed = client.state.withLock { state -> Bool in
            state.connected = true
            if !sessionPresent {
                state.subscribed = false
                if state.connections > 0 { state.sessionsLost += 1 }
            }
            state.connections += 1
            return state.subscribed
        }
        guard !subscribed else { return }
        pendingSubscriptions = client.plan.subscriptions.count
        for (filter, qos) in client.plan.subscriptions {
            note(mosquitto_subscribe_v5(handle, nil, filter, qos, 0, nil))
        }
    }

    private func subscribed(_ granted: UnsafeBufferPointer<Int32>) {
        if let refusal = granted.first(where: { $0 >= 0x80 }) {
            client.state.withLock { $0.lastError = "SUBACK \(refusal)" }
            return
        }
        pendingSubscriptions -= 1
        if pendingSubscriptions == 0 { client.state.withLock { $0.subscribed = true } }
    }

    private func disconnected(reason: Int32? = nil) {
        inSession = false
        client.state.withLock {
            $0.connected = false
            if let reason { $0.disconnectReason = reason }
        }
    }

    private func leave(abruptly: Bool) {
        let socket = mosquitto_socket(handle)
        if socket >= 0 {
            if abruptly {
                shutdown(socket, Int32(SHUT_RDWR))
            } else {
                mosquitto_disconnect_v5(handle, 0, nil)
            }
            let end = monotonicSeconds() + 2
            while mosquitto_socket(handle) >= 0 && monotonicSeconds() < end { exchange() }
        }
        disconnected()
    }

    // MARK: - Moving packets

    private func exchange() {
        let socket = mosquitto_socket(handle)
        guard socket >= 0 else { return }
        var polled = [
            pollfd(fd: socket, events: Int16(POLLIN), revents: 0),
            client.bell.pollEntry,
        ]
        if mosquitto_want_write(handle) { polled[0].events |= Int16(POLLOUT) }
        poll(&polled, 2, publishingSince == nil ? 200 : 20)
        if polled[1].revents != 0 { client.bell.answer() }
        if polled[0].revents != 0 { note(mosquitto_loop_read(handle, 1)) }
        if mosquitto_socket(handle) >= 0, mosquitto_want_write(handle) {
            note(mosquitto_loop_write(handle, 1))
        }
        if mosquitto_socket(handle) >= 0 { note(mosquitto_loop_misc(handle)) }
    }

    private func wait(milliseconds: Int32) {
        var polled = client.bell.pollEntry
        if poll(&polled, 1, milliseconds) > 0 { client.bell.answer() }
    }

    /// Losing the connection is the day's work here; other failures are kept for whoever asks.
    private func note(_ code: Int32) {
        let expected = [
            MOSQ_ERR_SUCCESS, MOSQ_ERR_CONN_LOST, MOSQ_ERR_NO_CONN, MOSQ_ERR_ERRNO, MOSQ_ERR_CONN_REFUSED,
        ]
        guard !expected.contains(where: { $0.rawValue == code }) else { return }
        client.state.withLock { $0.lastError = String(cString: mosquitto_strerror(code)) }
    }

    // MARK: - Publishing

    /// How many messages of publication `index` should have been sent by now.
    private func due(_ index: Int) -> Int {
        let publication = client.plan.publications[index]
        var due = dueBefore[index]
        if let since = publishingSince { due += Int((monotonicSeconds() - since) * publication.perSecond) }
        return min(due, publication.messagesMax)
    }

    private func followPublishingSwitch() {
        let wanted = client.state.withLock { $0.publishing }
        if wanted && publishingSince == nil {
            publishingSince = monotonicSeconds()
        } else if !wanted && publishingSince != nil {
            // What was not sent when publishing stopped is not sent at all.
            dueBefore = sent
            publishingSince = nil
        }
    }

    /// A sensor does not send old measurements at QoS 0: what fell due without a connection is not sent.
    private func skipMissedMeasurements() {
        followPublishingSwitch()
        for (index, publication) in client.plan.publications.enumerated() where publication.qos == 0 {
            dueBefore[index] -= max(0, due(index) - sent[index])
        }
    }

    private func publishDue() {
        followPublishingSwitch()
        for (index, publication) in client.plan.publications.enumerated() {
            var burst = 0
            while sent[index] < due(index), burst < 50, inSession,
                publication.qos == 0 || unanswered[index] < publication.window
            {
                publish(index, publication)
                burst += 1
            }
        }
    }

    private func publish(_ index: Int, _ publication: Client.Publication) {
        let number = client.ledger.sends(publication.stream)
        sent[index] += 1
        var payload = Array("\(client.ledger.mark) \(publication.stream.number) \(number) ".utf8)
        while payload.count < client.plan.payloadBytes { payload.append(UInt8(ascii: ".")) }
        var identifier: Int32 = 0
        let code = mosquitto_publish_v5(
            handle, &identifier, publication.topic, Int32(payload.count), payload, publication.qos, false, nil
        )
        note(code)
        guard publication.qos > 0 else { return }
        // Also when the connection broke under it: the library has queued it and sends it after reconnecting.
        // No acknowledgement can have come yet, for it is read on this thread.
        identifiers[identifier] = (index, number)
        unanswered[index] += 1
    }

    private func acknowledged(_ identifier: Int32, reason: Int32) {
        guard let (index, number) = identifiers.removeValue(forKey: identifier) else { return }
        unanswered[index] -= 1
        let stream = client.plan.publications[index].stream
        // PUBCOMP with 0x92 says that the handshake was over already, which a restart may bring [MQTT5-4.3.3].
        if reason < 0x80 || reason == 0x92 {
            client.ledger.acknowledged(stream, number)
        } else {
            client.ledger.refused(stream, number)
        }
    }

    // MARK: - Receiving

    /// The library keeps a second copy of a QoS 2 message resent before its PUBREL, and hands that over when
    /// PUBREL is resent, although only a new PUBLISH begins a new message. Its log tells when one came:
    /// `Client ID received PUBLISH (d0, q2, r0, m32769, 'topic', ... (96 bytes))`.
    private func logged(_ line: String) {
        guard let start = line.firstRange(of: " received PUBLISH ("),
            let end = line[start.upperBound...].firstIndex(of: "'")
        else { return }
        let words = line[start.upperBound..<end].split(separator: ", ")
        guard words.count == 4, words[1] == "q2", let identifier = Int32(words[3].dropFirst()) else { return }
        unreleased.insert(identifier)
    }

    private func received(_ message: mosquitto_message) {
        if message.qos == 2, unreleased.remove(message.mid) == nil { return }
        client.state.withLock { $0.messages += 1 }
        let bytes = UnsafeRawBufferPointer(start: message.payload, count: Int(message.payloadlen))
        var words: [Int] = []
        var word: Int?
        for byte in bytes {
            switch byte {
            case UInt8(ascii: "0")...UInt8(ascii: "9"): word = (word ?? 0) &* 10 &+ Int(byte - 48)
            case UInt8(ascii: " "):
                if let complete = word { words.append(complete) }
                word = nil
            default: break
            }
            if words.count == 3 { break }
        }
        // Messages of another ledger, and those of other programs, are not in these books.
        guard words.count == 3, words[0] == client.ledger.mark else { return }
        client.ledger.received(Ledger.StreamID(number: words[1]), words[2])
    }
}
