import MQTT

/// What the gateway has done for its clients since it started: counted from what goes into the core and comes
/// out of it, and averaged over the last 1, 5 and 15 minutes. Nothing of it survives the process.
struct Statistics {
    /// MQTT Control Packets of every type, PUBLISH included.
    private(set) var messagesReceived = Counter()
    private(set) var messagesSent = Counter()
    private(set) var publishesReceived = Counter()
    private(set) var publishesSent = Counter()
    /// Deliveries let go by a stated policy, whatever its reason.
    private(set) var publishesDropped = Counter()
    /// Of payloads alone.
    private(set) var payloadBytesReceived: UInt64 = 0
    private(set) var payloadBytesSent: UInt64 = 0
    /// Of whole packets, as the transport counted them.
    private(set) var bytesReceived = Counter()
    private(set) var bytesSent = Counter()
    /// Network Connections accepted, and CONNECT packets.
    private(set) var sockets = Counter()
    private(set) var connects = Counter()
    private(set) var connectedCount = 0
    private(set) var connectedMax = 0
    private(set) var sessionsExpired: UInt64 = 0
    private var tickedAt: Instant

    init(startedAt: Instant) { tickedAt = startedAt }

    // MARK: Counting

    mutating func opened() { sockets.add(1) }

    mutating func received(_ packet: borrowing Packet) {
        messagesReceived.add(1)
        switch packet {
        case .connect: connects.add(1)
        case .publish(let publish):
            publishesReceived.add(1)
            payloadBytesReceived &+= UInt64(publish.message.payloadCount)
        case .connack, .puback, .pubrec, .pubrel, .pubcomp, .subscribe, .suback, .unsubscribe, .unsuback,
            .pingreq, .pingresp, .disconnect, .auth:
            break
        }
    }

    /// Counts what one input made the gateway do.
    ///
    /// - Complexity: O(effects)
    mutating func carriedOut(_ effects: ArraySlice<Effect>) {
        for effect in effects {
            switch effect {
            case .send(_, .publish(let publish)):
                messagesSent.add(1)
                publishesSent.add(1)
                payloadBytesSent &+= UInt64(publish.message.payload.count)
            case .send: messagesSent.add(1)
            case .report(let observation): observed(observation)
            case .close, .reading, .packetSize, .append, .load, .index, .elide, .hasten, .uplink: break
            }
        }
    }

    private mutating func observed(_ observation: Observation) {
        switch observation {
        case .connected:
            connectedCount += 1
            connectedMax = max(connectedMax, connectedCount)
        case .disconnected(let identifier, _):
            // Every client that was connected has an identifier; who never got that far has none.
            if !identifier.isEmpty { connectedCount -= 1 }
        case .sessionEnded(_, .expired, _): sessionsExpired += 1
        case .dropped(_, _, let count): publishesDropped.add(UInt64(count))
        case .refused, .sessionEnded, .uplinkConnected, .uplinkDisconnected, .uplinkRemoved, .uplinkLacksQoS2,
            .deadLetter, .pressure,
            .stuck, .subscriptionsRest, .storageFailed, .storageRecovered, .wasOff, .full, .drained:
            break
        }
    }

    /// The transport's totals.
    mutating func carried(bytesReceived received: UInt64, bytesSent sent: UInt64) {
        bytesReceived.raise(to: received)
        bytesSent.raise(to: sent)
    }

    /// Brings the averages up to date.
    mutating func tick(at now: Instant) {
        let elapsed = now.milliseconds(since: tickedAt)
        guard elapsed > 0 else { return }
        tickedAt = now
        let decay = LoadAverage.Decay(over: elapsed)
        messagesReceived.tick(elapsed, decay)
        messagesSent.tick(elapsed, decay)
        publishesReceived.tick(elapsed, decay)
        publishesSent.tick(elapsed, decay)
        publishesDropped.tick(elapsed, decay)
        bytesReceived.tick(elapsed, decay)
        bytesSent.tick(elapsed, decay)
        sockets.tick(elapsed, decay)
        connects.tick(elapsed, decay)
    }
}

/// A count that only rises, and how fast it has risen.
struct Counter {
    private(set) var total: UInt64 = 0
    private var totalAtTick: UInt64 = 0
    private(set) var load = LoadAverage()

    mutating func add(_ count: UInt64) { total &+= count }
    mutating func raise(to total: UInt64) { self.total = max(self.total, total) }

    fileprivate mutating func tick(_ elapsed: UInt64, _ decay: LoadAverage.Decay) {
        load.add(perMinute: Double(total &- totalAtTick) * 60_000 / Double(elapsed), decay)
        totalAtTick = total
    }
}

/// Exponentially weighted averages of a rate per minute, as Unix keeps its load.
struct LoadAverage {
    private(set) var oneMinute = 0.0
    private(set) var fiveMinutes = 0.0
    private(set) var fifteenMinutes = 0.0

    /// How much of each average is left after some time.
    struct Decay {
        let oneMinute: Double
        let fiveMinutes: Double
        let fifteenMinutes: Double

        init(over milliseconds: UInt64) {
            let minutes = Double(milliseconds) / 60_000
            oneMinute = Self.exponential(minutes)
            fiveMinutes = Self.exponential(minutes / 5)
            fifteenMinutes = Self.exponential(minutes / 15)
        }

        /// e to the power of -x, for x of 0 and more. Not the C library's: this one has the same result on
        /// every machine.
        static func exponential(_ x: Double) -> Double {
            // Beyond this the result is nothing anyone would see.
            guard x < 64 else { return 0 }
            var part = x
            var squarings = 0
            while part > 0.5 {
                part /= 2
                squarings += 1
            }
            var term = 1.0
            var sum = 1.0
            for n in 1...14 {
                term *= -part / Double(n)
                sum += term
            }
            for _ in 0..<squarings { sum *= sum }
            return sum
        }
    }

    fileprivate mutating func add(perMinute rate: Double, _ decay: Decay) {
        oneMinute = rate + decay.oneMinute * (oneMinute - rate)
        fiveMinutes = rate + decay.fiveMinutes * (fiveMinutes - rate)
        fifteenMinutes = rate + decay.fifteenMinutes * (fifteenMinutes - rate)
    }
}
