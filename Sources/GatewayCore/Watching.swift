import MQTT

/// Whether devices say anything, by the topics that tell so. It lives as long as the process; after a start the retained
/// messages say who was last said to be there.
struct Watches {
    struct Watch {
        let topic: [UInt8]
        /// As configured when it began, or anew.
        var liveness: Liveness
        /// The connection that its device has, or had last; who share a topic have several.
        var connection: ConnectionID?
        /// How many there are; it does not end before they have.
        var connectionCount = 0
        /// Known of it without a connection.
        var lastHeardAt: Instant
        /// What was told last; nil before anything was.
        var isOnline: Bool?
        /// When it is looked at next; nil when nothing is scheduled.
        var checkAt: Instant?
    }

    private(set) var all: [Watch] = []
    private var places: [[UInt8]: Int] = [:]
    /// Places that nobody has any more.
    private var free: [Int] = []

    /// The place of the watch with this topic, which begins where there is none; nil when there are too many.
    mutating func place(of topic: [UInt8], _ liveness: Liveness, most: Int, at now: Instant) -> Int? {
        if let place = places[topic] {
            all[place].liveness = liveness
            return place
        }
        guard places.count < most else { return nil }
        let watch = Watch(topic: topic, liveness: liveness, lastHeardAt: now)
        let place = free.popLast() ?? all.count
        if place < all.count { all[place] = watch } else { all.append(watch) }
        places[topic] = place
        return place
    }

    /// The watch ends, which nobody has any more.
    mutating func remove(_ place: Int) {
        places[all[place].topic] = nil
        // A deadline that was set for it finds nothing to do.
        all[place].checkAt = nil
        all[place].connection = nil
        free.append(place)
    }

    subscript(place: Int) -> Watch {
        get { all[place] }
        _modify { yield &all[place] }
    }
}

// Liveness: a retained message says `offline` when a device was silent for too long, and `online` when it is heard again.
extension Gateway {
    /// A client whose profile has liveness is here.
    mutating func watch(
        _ id: ConnectionID, as treatment: Treatment, at now: Instant, into effects: inout [Effect]
    ) {
        guard let liveness = treatment.profile.liveness, let topic = treatment.stateTopic,
            TopicName.isValid(topic),
            let place = watches.place(of: topic, liveness, most: plan.limits.watchesMax, at: now)
        else {
            _ = connections.update(id) { $0.watch = nil }
            return
        }
        watches[place].connection = id
        watches[place].connectionCount += 1
        _ = connections.update(id) { $0.watch = place }
        heard(at: place, now, into: &effects)
    }

    /// A device said something: whoever was told that it is silent is told otherwise.
    ///
    /// - Complexity: O(1) while it is known to be there
    mutating func heard(at place: Int, _ now: Instant, into effects: inout [Effect]) {
        watches[place].lastHeardAt = now
        if watches[place].isOnline != true { tell(true, at: place, now, into: &effects) }
        guard watches[place].checkAt == nil else { return }
        scheduleWatch(place, at: now.advanced(bySeconds: watches[place].liveness.silentSeconds))
    }

    private mutating func scheduleWatch(_ place: Int, at: Instant) {
        watches[place].checkAt = at
        schedule(.silence(watch: place), at: at)
    }

    mutating func checkSilence(_ place: Int, at now: Instant, into effects: inout [Effect]) {
        // One that was set before the configuration changed may be about another.
        guard watches.all.indices.contains(place), let set = watches[place].checkAt, set <= now else {
            return
        }
        watches[place].checkAt = nil
        let watch = watches[place]
        // Whom we do not read we cannot hear.
        let isUnread = watch.connection.flatMap { connections.read($0) { $0.isReadingPaused } } == true
        let heardAt = isUnread ? now : watch.lastHeardAt
        let due = heardAt.advanced(bySeconds: watch.liveness.silentSeconds)
        guard due <= now else { return scheduleWatch(place, at: due) }
        if watch.isOnline != false { tell(false, at: place, now, into: &effects) }
        endWatchOfAbsent(place)
    }

    /// Who is silent and away is known by what is retained, and watched again from its next CONNECT on.
    private mutating func endWatchOfAbsent(_ place: Int) {
        if watches[place].connectionCount == 0, watches[place].isOnline == false { watches.remove(place) }
    }

    /// A connection of a device that is watched has ended.
    mutating func watchedLeft(_ place: Int) {
        watches[place].connectionCount -= 1
        endWatchOfAbsent(place)
    }

    private mutating func tell(
        _ isOnline: Bool, at place: Int, _ now: Instant, into effects: inout [Effect]
    ) {
        watches[place].isOnline = isOnline
        let watch = watches[place]
        let payload = Array((isOnline ? watch.liveness.online : watch.liveness.offline).utf8)
        // Told once is enough: after a start it is read from what is retained.
        if state.retained[watch.topic[...]].map({ $0.message.payload.elementsEqual(payload) }) == true {
            return
        }
        let message = ApplicationMessage(topic: watch.topic, payload: payload)
        var record = MessageRecord(
            qos: .atLeastOnce, retained: hasRoomToKeep(message) ? .store : .none, message: message)
        let shares = shares(of: message.topic, published: .atLeastOnce, retain: true, by: nil)
        keepAndPass(&record, to: shares, at: now, into: &effects)
    }

    /// The configuration changed. Of who is away only those are known who were said to be there, and their time begins
    /// anew.
    mutating func rewatch(at now: Instant, into effects: inout [Effect]) {
        watches = Watches()
        for id in connections.keys {
            _ = connections.update(id) { $0.watch = nil }
            guard let treatment = connections.read(id, { $0.session == nil ? nil : $0.treatment }) ?? nil
            else {
                continue
            }
            watch(id, as: treatment, at: now, into: &effects)
        }
        recoverWatches(at: now)
    }

    /// After a start, everyone who was said to be there is given the time to be heard.
    ///
    /// - Complexity: O(profiles + retained messages on their state topics)
    mutating func recoverWatches(at now: Instant) {
        for ready in profiles.all {
            guard let liveness = ready.profile.liveness, let filter = ready.stateFilter else { continue }
            let online = Array(liveness.online.utf8)
            for retained in state.retained.matching(filter) {
                let topic = retained.message.topic
                guard retained.message.payload.elementsEqual(online), ready.mayTellState(at: topic),
                    let place = watches.place(
                        of: Array(topic), liveness, most: plan.limits.watchesMax, at: now)
                else { continue }
                watches[place].isOnline = true
                guard watches[place].checkAt == nil else { continue }
                scheduleWatch(place, at: now.advanced(bySeconds: liveness.silentSeconds))
            }
        }
    }
}
