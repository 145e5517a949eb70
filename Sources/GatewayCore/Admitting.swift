import MQTT

// What a client's profile says of each PUBLISH before it is taken. Only who has such a profile comes here.
extension Gateway {
    /// Makes of a PUBLISH what its publisher's profile lets it be; refuses it where it may not be at all.
    ///
    /// - Returns: false when it was refused, or its client closed: there is nothing more to do about it then.
    mutating func admit(
        _ publish: inout Publish, _ aspects: PublishAspects, from id: ConnectionID, at now: Instant,
        into effects: inout [Effect]
    ) -> Bool {
        guard let treatment = connections.read(id, { $0.treatment }) ?? nil else { return true }
        if aspects.contains(.rate) { slowDown(id, for: publish, at: now, into: &effects) }
        let maximumQoS = connections.read(id) { $0.maximumQoS } ?? .exactlyOnce
        if publish.qos > maximumQoS {
            count(\.refusedPublishes, of: treatment)
            end(id, .protocolError(.qosNotSupported), at: now, into: &effects)
            return false
        }
        if aspects.contains(.rights), !treatment.publish.allows(topic: publish.message.topic) {
            count(\.refusedPublishes, of: treatment)
            refuse(publish, .notAuthorized, from: id, at: now, into: &effects)
            return false
        }
        if let expiry = treatment.profile.messageExpiry {
            publish.messageExpirySeconds = expiry.seconds(for: publish.messageExpirySeconds)
        }
        return true
    }

    // MARK: Rate

    /// Counts a message against the rate of its client. What is over it is taken as well, since it came; then the
    /// client is not read until that is made up for.
    mutating func slowDown(
        _ id: ConnectionID, for publish: borrowing Publish, at now: Instant, into effects: inout [Effect]
    ) {
        let size = publish.message.bytes.count
        _ = paces.update(id) { $0.bucket.take(size, hasWaited: true, at: now) }
        guard isTooFast(id, at: now), connections.read(id, { $0.isReadingPaused }) == false else { return }
        pauseReading(id, into: &effects)
        if let treatment = connections.read(id, { $0.treatment }) ?? nil { count(\.pauses, of: treatment) }
    }

    /// Whether a client still owes what it published over its rate. It goes on by itself when it does not.
    mutating func isTooFast(_ id: ConnectionID, at now: Instant) -> Bool {
        let found = paces.update(id) { pace -> (wait: UInt64, isNew: Bool) in
            let wait = pace.bucket.debt(at: now)
            guard wait > 0, pace.wakesAt == nil else { return (wait, false) }
            pace.wakesAt = now.advanced(byMilliseconds: wait)
            return (wait, true)
        }
        guard let (wait, isNew) = found, wait > 0 else { return false }
        if isNew { schedule(.rate(id), at: now.advanced(byMilliseconds: wait)) }
        return true
    }

    mutating func checkRate(_ id: ConnectionID, at now: Instant, into effects: inout [Effect]) {
        _ = paces.update(id) { $0.wakesAt = nil }
        readOn(id, at: now, into: &effects)
    }

    /// What a client may publish by its profile's rate, from what it had left of it.
    mutating func setPace(_ rate: PublishRate?, of id: ConnectionID, at now: Instant) {
        guard rate != nil || !paces.isEmpty else { return }
        let former = paces[id] ?? clientIdentifier(of: id).flatMap { formerPaces.take($0) }
        if var former, former.rate == rate {
            former.wakesAt = nil
            paces[id] = former
        } else {
            paces[id] = Pace(rate, at: now)
        }
    }

    /// A connection ends.
    mutating func stowPace(of id: ConnectionID, at now: Instant) {
        guard !paces.isEmpty, var pace = paces[id] else { return }
        paces[id] = nil
        guard !pace.bucket.isFull(at: now), let client = clientIdentifier(of: id) else { return }
        formerPaces.keep(pace, of: client, most: plan.limits.formerPacesMax)
    }

    func clientIdentifier(of id: ConnectionID) -> String? {
        connections.read(id) { $0.clientIdentifier }
    }

    // MARK: Counting

    mutating func count(
        _ field: WritableKeyPath<ProfileCounts, UInt64>, of treatment: Treatment, by amount: UInt64 = 1
    ) {
        guard profileCounts.indices.contains(treatment.place) else { return }
        profileCounts[treatment.place][keyPath: field] &+= amount
    }
}

extension MessageExpiry {
    /// Instead of what a message came with.
    func seconds(for came: UInt32?) -> UInt32? {
        guard let seconds = came ?? defaultSeconds else { return secondsMax }
        return min(seconds, secondsMax ?? .max)
    }
}

/// How much a client may publish now.
struct Pace {
    let rate: PublishRate
    var bucket: TokenBucket
    /// When it is looked at again whether it may be read.
    var wakesAt: Instant?

    /// nil when there is nothing to pace.
    init?(_ rate: PublishRate?, at now: Instant) {
        guard let rate, let bucket = TokenBucket(rate, at: now) else { return nil }
        self.rate = rate
        self.bucket = bucket
    }
}

/// What clients that went away had left of their rate, lest a new connection be a new burst. When the newer half is
/// full, the older one is forgotten.
struct FormerPaces {
    private var newer: [[UInt8]: Pace] = [:]
    private var older: [[UInt8]: Pace] = [:]

    mutating func keep(_ pace: Pace, of client: String, most: Int) {
        if newer.count >= max(1, most / 2) {
            older = newer
            newer = [:]
        }
        newer[Array(client.utf8)] = pace
    }

    mutating func take(_ client: String) -> Pace? {
        let client = Array(client.utf8)
        let latest = newer.removeValue(forKey: client)
        let former = older.removeValue(forKey: client)
        return latest ?? former
    }
}

/// What the settings of a profile have done since the start, or since it was configured.
package struct ProfileCounts: Hashable, Sendable {
    /// PUBLISH packets above the QoS of the profile, or to topics that it does not allow.
    package var refusedPublishes: UInt64 = 0
    package var refusedSubscriptions: UInt64 = 0
    /// How often a client was not read because it published too fast.
    package var pauses: UInt64 = 0
    /// What uplinks were spared because it was no news, or not for long enough. What is held back is not among them yet.
    package var suppressed: UInt64 = 0
    /// Bytes of those: topics, properties and payloads.
    package var suppressedBytes: UInt64 = 0

    package init() {}
}
