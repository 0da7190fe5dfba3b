package main

import (
	"context"
	"fmt"
	"log"
	"net/netip"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

// addresses gives each Service of type LoadBalancer (without a class: those belong to others) one address of a range and
// writes it to the Service's status, which is all that kube-proxy needs to route it.
//
// Invariant: an address belongs to at most one Service. spec.loadBalancerIP is honoured when it lies in the range and is
// free; until then the Service stays without an address. Others get the lowest free address of the lower half, so that
// the upper half stays free for those who ask for a certain one. What is written in a status survives a restart.
type addresses struct {
	client *kubernetes.Clientset
	prefix netip.Prefix
	lister cache.Indexer
	queue  workqueue.TypedRateLimitingInterface[string]
	mutex  sync.Mutex
	owner  map[netip.Addr]string
	given  map[string]netip.Addr
}

func startAddresses(ctx context.Context, client *kubernetes.Clientset, cidr string) error {
	prefix, err := netip.ParsePrefix(cidr)
	if err != nil || !prefix.Addr().Is4() || prefix.Bits() > 28 {
		return fmt.Errorf("%q is not an IPv4 range of 16 addresses or more", cidr)
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	informer := factory.Core().V1().Services().Informer()
	a := &addresses{
		client: client,
		prefix: prefix.Masked(),
		lister: informer.GetIndexer(),
		queue: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[string](20*time.Millisecond, 2*time.Second)),
		owner: map[netip.Addr]string{},
		given: map[string]netip.Addr{},
	}
	enqueue := func(object any) {
		if key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(object); err == nil {
			a.queue.Add(key)
		}
	}
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: enqueue, DeleteFunc: enqueue, UpdateFunc: func(_, object any) { enqueue(object) },
	}); err != nil {
		return err
	}
	factory.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		return ctx.Err()
	}
	for _, object := range a.lister.List() {
		a.adopt(object.(*corev1.Service))
	}
	go a.work(ctx)
	return nil
}

// adopt notes the address that a status already names.
func (a *addresses) adopt(service *corev1.Service) {
	key := service.Namespace + "/" + service.Name
	if current, ok := currentAddress(service); ok && wantsAddress(service) && a.prefix.Contains(current) {
		a.owner[current], a.given[key] = key, current
	}
}

func (a *addresses) work(ctx context.Context) {
	for {
		key, shutdown := a.queue.Get()
		if shutdown {
			return
		}
		if err := a.sync(ctx, key); err != nil {
			log.Printf("addresses: %s: %v", key, err)
			a.queue.AddRateLimited(key)
		} else {
			a.queue.Forget(key)
		}
		a.queue.Done(key)
	}
}

func (a *addresses) sync(ctx context.Context, key string) error {
	object, exists, err := a.lister.GetByKey(key)
	if err != nil {
		return err
	}
	if !exists {
		a.free(key)
		return nil
	}
	service := object.(*corev1.Service)
	if !wantsAddress(service) {
		if a.free(key) {
			return a.write(ctx, service, nil)
		}
		return nil
	}
	address, err := a.assign(key, service.Spec.LoadBalancerIP)
	if err != nil {
		return err
	}
	if current, ok := currentAddress(service); ok && current == address {
		return nil
	}
	return a.write(ctx, service, []corev1.LoadBalancerIngress{{IP: address.String()}})
}

// assign answers the Service's address, keeping the one it has unless it asks for another.
func (a *addresses) assign(key, requested string) (netip.Addr, error) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	held, has := a.given[key]
	if requested == "" && has {
		return held, nil
	}
	address, err := a.choose(key, requested)
	if err != nil {
		return netip.Addr{}, err
	}
	if has {
		delete(a.owner, held)
	}
	a.owner[address], a.given[key] = key, address
	return address, nil
}

func (a *addresses) choose(key, requested string) (netip.Addr, error) {
	if requested != "" {
		address, err := netip.ParseAddr(requested)
		if err != nil || !a.prefix.Contains(address) {
			return netip.Addr{}, fmt.Errorf("loadBalancerIP %q is not in %s", requested, a.prefix)
		}
		if other, taken := a.owner[address]; taken && other != key {
			return netip.Addr{}, fmt.Errorf("loadBalancerIP %s belongs to %s", requested, other)
		}
		return address, nil
	}
	// The first two are the network's own and the node's.
	address := a.prefix.Addr().Next().Next()
	for range 1<<(31-a.prefix.Bits()) - 2 {
		if _, taken := a.owner[address]; !taken {
			return address, nil
		}
		address = address.Next()
	}
	return netip.Addr{}, fmt.Errorf("no address left in the lower half of %s", a.prefix)
}

// free says whether the Service had an address.
func (a *addresses) free(key string) bool {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	address, had := a.given[key]
	if had {
		delete(a.owner, address)
		delete(a.given, key)
	}
	return had
}

func (a *addresses) write(ctx context.Context, service *corev1.Service, ingress []corev1.LoadBalancerIngress) error {
	updated := service.DeepCopy()
	updated.Status.LoadBalancer.Ingress = ingress
	_, err := a.client.CoreV1().Services(service.Namespace).UpdateStatus(ctx, updated, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil // Gone meanwhile: its deletion is on the queue.
	}
	return err
}

func wantsAddress(service *corev1.Service) bool {
	return service.Spec.Type == corev1.ServiceTypeLoadBalancer && service.Spec.LoadBalancerClass == nil &&
		service.DeletionTimestamp == nil
}

func currentAddress(service *corev1.Service) (netip.Addr, bool) {
	for _, ingress := range service.Status.LoadBalancer.Ingress {
		if address, err := netip.ParseAddr(ingress.IP); err == nil {
			return address, true
		}
	}
	return netip.Addr{}, false
}
