import MQTT

// What a client is subscribed to, and asks to be.
extension SimulatedClient {
    mutating func changeSubscription(at now: UInt64) {
        guard !subscriptions.isEmpty else { return }
        let place = dice.below(subscriptions.count)
        if dice.below(3) == 0, subscriptions[place].isWanted {
            // The same once more, for its retained messages [MQTT5-3.8.4-4].
            subscriptions[place].isThere = nil
        } else {
            subscriptions[place].isWanted.toggle()
        }
        sendRequests(at: now)
    }

    /// Asks for what is not as it should be and was not asked for on this connection.
    mutating func sendRequests(at now: UInt64) {
        guard requests.isEmpty else { return }
        var asked: [UInt32?: [Int]] = [:]
        var order: [UInt32?] = []
        var ended: [Int] = []
        for (place, state) in subscriptions.enumerated() where state.isThere != state.isWanted {
            guard state.isWanted else {
                ended.append(place)
                continue
            }
            let identifier = plan.subscriptions[place].identifier
            if asked[identifier] == nil { order.append(identifier) }
            asked[identifier, default: []].append(place)
        }
        for identifier in order {
            guard let places = asked[identifier] else { continue }
            let id = takeIdentifier()
            requests.append(Request(id: id, isSubscribe: true, places: places))
            let filters = places.map { plan.subscriptions[$0].request }
            for place in places { subscriptions[place].isThere = nil }
            send(
                .subscribe(Subscribe(id: id, requests: filters, subscriptionIdentifier: identifier)), at: now)
            note(.subscribing(filters, identifier: identifier))
        }
        guard !ended.isEmpty else { return }
        let id = takeIdentifier()
        requests.append(Request(id: id, isSubscribe: false, places: ended))
        let filters = ended.map { plan.subscriptions[$0].request.filter }
        for place in ended { subscriptions[place].isThere = nil }
        send(.unsubscribe(Unsubscribe(id: id, filters: filters)), at: now)
        note(.unsubscribing(filters))
    }

    mutating func subscribed(_ suback: Suback) {
        guard let i = requests.firstIndex(where: { $0.id == suback.id && $0.isSubscribe }) else {
            return note(.broken("SUBACK \(suback.id.rawValue) for nothing"))
        }
        let places = requests.remove(at: i).places
        guard places.count == suback.reasons.count else {
            return note(.broken("\(suback.reasons.count) Reason Codes for \(places.count) filters"))
        }
        let filters = places.map { plan.subscriptions[$0].request }
        for (place, reason) in zip(places, suback.reasons) {
            if reason.isError {
                // It stays as it was; asking again at once would help nobody.
                subscriptions[place].isThere = false
                subscriptions[place].isWanted = false
            } else {
                subscriptions[place].isThere = true
            }
        }
        note(.subscribed(filters, identifier: plan.subscriptions[places[0]].identifier, suback.reasons))
    }

    mutating func unsubscribed(_ unsuback: Unsuback) {
        guard let i = requests.firstIndex(where: { $0.id == unsuback.id && !$0.isSubscribe }) else {
            return note(.broken("UNSUBACK \(unsuback.id.rawValue) for nothing"))
        }
        let places = requests.remove(at: i).places
        for place in places { subscriptions[place].isThere = false }
        note(.unsubscribed(places.map { plan.subscriptions[$0].request.filter }))
    }
}
