import MQTT

/// What went up last of each topic under report by exception. It lives as long as the process: after a start the first
/// value of each is news.
///
/// It is remembered for as long as the clouds have it, or will: what is let go on its way there is forgotten, so that the
/// next value is news again, however near it is.
struct Reports {
    /// What carries a value up: a message that waits for a cloud or is on its way to it.
    struct Carrier: Hashable {
        let queue: SessionID
        let delivery: Delivery
    }

    private struct Last {
        var value: Double
        var at: Instant
        var carriers: [Carrier]
        /// At QoS 0 it is not known whether it arrived. It is taken for that until a link comes or goes; nil where all
        /// have it in their queues.
        var links: UInt64?
    }

    private struct Generation {
        var last: [[UInt8]: Last] = [:]
        var topics: [Carrier: [UInt8]] = [:]
        var bytes = 0
    }

    /// When the newer one holds half of what is remembered at most, it becomes the older one, and what that held is
    /// forgotten.
    private var newer = Generation()
    private var older = Generation()
    /// How often an uplink has come or gone.
    private var links: UInt64 = 0

    enum Verdict: Equatable {
        /// It is to go up.
        ///
        /// - value: what is remembered of it; nil for what is no number.
        case news(value: Double?)
        case noNews
        /// It is news, but too soon after what went up last: see `HeldBack`.
        case tooSoon(value: Double, until: Instant)
    }

    /// - Complexity: O(bytes)
    func verdict(on message: ApplicationMessage, _ rule: ReportByException, at now: Instant) -> Verdict {
        guard let value = NumberReader.number(in: message.payload, at: rule.value) else {
            return .news(value: nil)
        }
        let topic = Array(message.topic)
        guard let last = newer.last[topic] ?? older.last[topic], last.links.map({ $0 == links }) ?? true
        else {
            return .news(value: value)
        }
        let silent = now.milliseconds(since: last.at)
        if let most = rule.intervalMillisecondsMax, silent >= most { return .news(value: value) }
        let change = (value - last.value).magnitude
        let isNews =
            switch rule.deadband {
            case .absolute(let band): change > band
            case .relative(let part): change > part * last.value.magnitude
            }
        guard isNews else { return .noNews }
        return silent >= rule.intervalMillisecondsMin
            ? .news(value: value)
            : .tooSoon(value: value, until: last.at.advanced(byMilliseconds: rule.intervalMillisecondsMin))
    }

    /// A value goes up. Behind what is no number, the next number is news.
    ///
    /// - Parameters:
    ///   - carriers: what brings it there.
    ///   - isUnsure: whether it also went at QoS 0.
    mutating func wentUp(
        _ value: Double?, of topic: ArraySlice<UInt8>, by carriers: [Carrier], isUnsure: Bool,
        _ limits: Limits,
        at now: Instant
    ) {
        let topic = Array(topic)
        forget(topic)
        guard let value, topic.count <= limits.reportTopicBytesMax / 2 else { return }
        if newer.last.count >= max(1, limits.reportTopicsMax / 2)
            || newer.bytes + topic.count > limits.reportTopicBytesMax / 2
        {
            older = newer
            newer = Generation()
        }
        newer.last[topic] = Last(
            value: value, at: now, carriers: carriers, links: isUnsure ? links : nil)
        newer.bytes += topic.count
        for carrier in carriers { newer.topics[carrier] = topic }
    }

    /// The next value of a topic is news.
    mutating func forget(_ topic: [UInt8]) {
        Self.forget(topic, in: &newer)
        Self.forget(topic, in: &older)
    }

    private static func forget(_ topic: [UInt8], in generation: inout Generation) {
        guard let last = generation.last.removeValue(forKey: topic) else { return }
        generation.bytes -= topic.count
        for carrier in last.carriers { generation.topics[carrier] = nil }
    }

    /// A message is let go that may be what carried a value.
    mutating func forget(_ carrier: Carrier) {
        if let topic = newer.topics[carrier] ?? older.topics[carrier] { forget(topic) }
    }

    var isEmpty: Bool { newer.last.isEmpty && older.last.isEmpty }

    /// An uplink has come or gone.
    mutating func linksChanged() { links &+= 1 }
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
        var verdict = reports.verdict(on: message, rule, at: now)
        if case .tooSoon(let value, _) = verdict, heldBack.bytes > plan.limits.heldBackBytesMax {
            verdict = .news(value: value)
        }
        switch verdict {
        case .news: break
        case .noNews, .tooSoon: shares.removeAll { uplinkName(of: $0.session) != nil }
        }
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

    func uplinkName(of session: SessionID) -> String? { read(session) { $0.owner.uplinkName } ?? nil }

    /// How many uplinks are among the receivers.
    func uplinkCount(in shares: [MessageRecord.Target]) -> Int {
        shares.count { uplinkName(of: $0.session) != nil }
    }

    /// A message of which `choose` had a verdict is taken, and not sent to anybody yet.
    ///
    /// - Parameters:
    ///   - record: with those who have it in their queues.
    ///   - passing: those who get it at QoS 0.
    ///   - wanted: how many uplinks were to have it.
    mutating func note(
        _ verdict: Reports.Verdict, of record: MessageRecord, _ passing: [MessageRecord.Target], wanted: Int,
        as treatment: Treatment, at now: Instant
    ) {
        switch verdict {
        case .news(let value):
            noteWentUp(value, record, passing, wanted: wanted, at: now)
        case .noNews: countSuppressed(record.message, of: treatment)
        // It may yet go up.
        case .tooSoon: break
        }
    }

    /// Uplinks are spared a message for good.
    mutating func countSuppressed(_ message: ApplicationMessage, of treatment: Treatment) {
        count(\.suppressed, of: treatment)
        count(\.suppressedBytes, of: treatment, by: UInt64(message.bytes.count))
    }

    mutating func noteWentUp(
        _ value: Double?, _ record: MessageRecord, _ passing: [MessageRecord.Target], wanted: Int,
        at now: Instant
    ) {
        let carriers = record.targets.compactMap { target -> Reports.Carrier? in
            guard let delivery = target.delivery, uplinkName(of: target.session) != nil else { return nil }
            return Reports.Carrier(queue: target.session, delivery: delivery)
        }
        let passingCount = uplinkCount(in: passing)
        // A queue that was full has let it go.
        guard carriers.count + passingCount == wanted else {
            return reports.forget(Array(record.message.topic))
        }
        reports.wentUp(
            value, of: record.message.topic, by: carriers, isUnsure: passingCount > 0, plan.limits, at: now)
    }

    /// Messages of a queue are let go. If they were to bring what is remembered as having gone up, it has not.
    mutating func forgetReports(of deliveries: [Delivery], in session: SessionID) {
        guard !reports.isEmpty, uplinkName(of: session) != nil else { return }
        for delivery in deliveries { reports.forget(Reports.Carrier(queue: session, delivery: delivery)) }
    }

    /// Whether anything is remembered of what went up, or is to go.
    var mayBeReported: Bool { !reports.isEmpty || !heldBack.isEmpty }

    /// A message goes up that no rule was asked about: nothing that came before it may follow, and what is remembered of its
    /// topic is not the last any more.
    mutating func supersede(_ topic: ArraySlice<UInt8>) {
        let topic = Array(topic)
        letGo(topic)
        reports.forget(topic)
    }

    /// A message at QoS 0 did not go up after all, or an old one of its topic went again.
    mutating func forgetReport(of topic: ArraySlice<UInt8>, to session: SessionID) {
        guard !reports.isEmpty, uplinkName(of: session) != nil else { return }
        reports.forget(Array(topic))
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
