import MQTT

/// What went up last of each topic under report by exception. It lives as long as the process: after a start the first
/// value of each is news.
struct Reports {
    private struct Last {
        var value: Double
        var at: Instant
    }

    private var last: [[UInt8]: Last] = [:]

    /// Whether a value is to go up.
    enum Verdict: Equatable {
        /// - value: what is remembered of it; nil for what is no number.
        case news(value: Double?)
        case noNews
    }

    /// - Complexity: O(bytes)
    func verdict(on message: ApplicationMessage, _ rule: ReportByException, at now: Instant) -> Verdict {
        guard let value = NumberReader.number(in: message.payload, at: rule.value) else {
            return .news(value: nil)
        }
        guard let last = last[Array(message.topic)] else { return .news(value: value) }
        let silent = now.milliseconds(since: last.at)
        if let most = rule.intervalMillisecondsMax, silent >= most { return .news(value: value) }
        guard silent >= rule.intervalMillisecondsMin else { return .noNews }
        let change = (value - last.value).magnitude
        let isNews =
            switch rule.deadband {
            case .absolute(let band): change > band
            case .relative(let part): change > part * last.value.magnitude
            }
        return isNews ? .news(value: value) : .noNews
    }

    /// A value goes up. Behind what is no number, the next number is news.
    ///
    /// - Parameter topicsMax: what is said of more topics than that is not remembered, so that all of it is news.
    mutating func wentUp(_ value: Double?, of topic: ArraySlice<UInt8>, topicsMax: Int, at now: Instant) {
        let key = Array(topic)
        guard let value else {
            last[key] = nil
            return
        }
        guard last.count < topicsMax || last[key] != nil else { return }
        last[key] = Last(value: value, at: now)
    }
}

// What a profile says of a message on its way to the uplinks. All of it comes before the message joins any queue, so the
// books of an uplink know nothing of what it was spared; `ProfileCounts` does.
extension Gateway {
    /// Takes from the receivers of a message the uplinks that its publisher's profile does not name, and those that it
    /// is no news for, and leads it into the lane of the profile's priority.
    ///
    /// - Returns: what to remember once the message is taken; nil where the profile says nothing of news.
    mutating func choose(
        _ shares: inout [MessageRecord.Target], of message: ApplicationMessage, as treatment: Treatment,
        at now: Instant
    ) -> Reports.Verdict? {
        if treatment.aspects.contains(.uplink) { lead(&shares, as: treatment.profile.uplink) }
        guard treatment.aspects.contains(.exceptions),
            let exception = treatment.exceptions.first(where: { $0.filter.matches(message.topic) }),
            shares.contains(where: { uplinkName(of: $0.session) != nil })
        else { return nil }
        let rule = treatment.profile.reportByException[exception.place]
        let verdict = reports.verdict(on: message, rule, at: now)
        if verdict == .noNews { shares.removeAll { uplinkName(of: $0.session) != nil } }
        return verdict
    }

    /// Leaves of the uplinks among the receivers those that a profile names, in the lane that it says.
    func lead(_ shares: inout [MessageRecord.Target], as choice: UplinkChoice) {
        if let names = choice.names {
            shares.removeAll { share in uplinkName(of: share.session).map { !names.contains($0) } ?? false }
        }
        guard let priority = choice.priority else { return }
        for i in shares.indices {
            guard let uplink = uplinkName(of: shares[i].session) else { continue }
            shares[i].session = laneSession(instead: shares[i].session, of: uplink, priority)
        }
    }

    private func uplinkName(of session: SessionID) -> String? { read(session) { $0.owner.uplinkName } ?? nil }

    /// A message of which `choose` had a verdict is taken.
    mutating func note(
        _ verdict: Reports.Verdict, of message: ApplicationMessage, as treatment: Treatment, at now: Instant
    ) {
        switch verdict {
        case .news(let value):
            reports.wentUp(value, of: message.topic, topicsMax: plan.limits.reportTopicsMax, at: now)
        case .noNews:
            count(\.suppressed, of: treatment)
            count(\.suppressedBytes, of: treatment, by: UInt64(message.bytes.count))
        }
    }

    /// The lane of an uplink for a priority. What a route leads into a queue of its own, or ahead of its backlog, stays
    /// there.
    private func laneSession(
        instead session: SessionID, of uplink: String, _ priority: UplinkRoutes.Priority
    ) -> SessionID {
        guard let index = uplinkIndex(of: uplink) else { return session }
        let lanes = uplinks[index.number].lanes
        let labels = UplinkRoutes.Priority.allCases.map(\.laneLabel)
        guard let lane = lanes.first(where: { $0.session == session }), labels.contains(lane.label) else {
            return session
        }
        return lanes.first { $0.label == priority.laneLabel }?.session ?? session
    }

    /// Labels of the lanes that profiles ask for at an uplink, beside those of its routes.
    func laneLabelsOfProfiles(for uplink: String) -> [String] {
        var labels: [String] = []
        for ready in profiles.all {
            let choice = ready.profile.uplink
            guard let label = choice.priority?.laneLabel, !label.isEmpty, !labels.contains(label),
                choice.names?.contains(uplink) ?? true
            else { continue }
            labels.append(label)
        }
        return labels
    }

    /// Whether a message without RETAIN is kept as the last value of its topic, because its publisher's profile says so
    /// and there is room.
    func keepsLastValue(of publish: borrowing Publish, as treatment: Treatment) -> Bool {
        guard treatment.aspects.contains(.lastValue), !publish.retain, !publish.message.payload.isEmpty,
            treatment.keepsLastValue.contains(where: { $0.matches(publish.message.topic) }),
            !owns(publish.message.topic)
        else { return false }
        return hasRoomToKeep(publish.message) && !(publish.qos == .atMostOnce && isUnderPressure)
    }
}
